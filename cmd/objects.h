// --object: user creatable objects, of which there are secrets.
#pragma once

#include <map>
#include <string>

#include "block/util/result.h"

namespace coimg {

/// The objects that a command line defines. Passphrases are kept in memory only.
class ObjectStore {
 public:
  /// Takes one "TYPE,id=ID,property=value..." definition. Errors: EINVAL with the words that qemu-img has for it.
  Result<void> add(const std::string& definition);

  [[nodiscard]] bool contains(const std::string& id) const { return secrets_.contains(id); }

 private:
  std::map<std::string, std::string> secrets_;
};

}  // namespace coimg
