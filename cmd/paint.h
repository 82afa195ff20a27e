// Paint: colours for terminals.
#pragma once

#include <cstdio>
#include <string>
#include <string_view>

namespace coimg {

enum class Tint { kGood, kDoubtful, kBad };

/// Puts colour on text where that is wanted, and leaves it alone elsewhere.
class Paint {
 public:
  /// Leaves all text alone.
  Paint() = default;
  /// For a terminal, unless NO_COLOR is set or the terminal is a dumb one.
  static Paint for_stream(FILE* stream);

  [[nodiscard]] bool is_on() const { return on_; }
  [[nodiscard]] std::string operator()(Tint tint, std::string_view text) const;

 private:
  bool on_ = false;
};

}  // namespace coimg
