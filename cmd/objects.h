// --object: user creatable objects, of which there are secrets.
#pragma once

#include <map>
#include <optional>
#include <string>

#include "block/util/result.h"

namespace coimg {

class OptionDeclarer;

/// The objects that a command line defines. Passphrases are kept in memory only.
class ObjectStore {
 public:
  /// Declares --object, which adds to this store or answers what there is to say.
  void declare(OptionDeclarer& options);

  [[nodiscard]] bool contains(const std::string& id) const { return secrets_.contains(id); }

 private:
  /// Takes one "TYPE,id=ID,property=value..." definition. The value is help, when that was asked for. Errors: EINVAL
  /// with the words that qemu-img has for it.
  Result<std::optional<std::string>> add(const std::string& definition);

  /// Nothing for a secret that is stored encrypted: nobody needs its plain text yet.
  std::map<std::string, std::optional<std::string>> secrets_;
};

}  // namespace coimg
