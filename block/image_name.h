// How the name of an open image is shown when no path or URI says it all: as json:{...}.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "block/options.h"

namespace coimg {

/// The options that lead to the same node again, in the order in which they are shown.
class NodeDescription {
 public:
  /// A dotted key becomes nested objects. What is added later replaces what has the same key.
  void add(std::string_view key, OptionValue value);
  void add_child(std::string_view key, NodeDescription child);

  /// "{"driver": "raw", ...}" on one line, in ASCII.
  [[nodiscard]] std::string to_json() const;

 private:
  struct Member {
    std::string key;
    OptionValue value;
    std::vector<NodeDescription> child;  ///< one for an object, none for a scalar
  };
  Member& member(std::string_view key);

  std::vector<Member> members_;
};

}  // namespace coimg
