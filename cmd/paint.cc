#include "cmd/paint.h"

#include <fmt/format.h>
#include <unistd.h>

#include <cstdlib>

namespace coimg {

Paint Paint::for_stream(FILE* stream) {
  Paint paint;
  const char* const no_color = getenv("NO_COLOR");
  const char* const terminal = getenv("TERM");
  paint.on_ = isatty(fileno(stream)) == 1 && (no_color == nullptr || *no_color == '\0') && terminal != nullptr &&
              std::string_view(terminal) != "dumb";
  return paint;
}

std::string Paint::operator()(Tint tint, std::string_view text) const {
  if (!on_) return std::string(text);
  constexpr int kRed = 31, kGreen = 32, kYellow = 33;
  const int colour = tint == Tint::kGood ? kGreen : tint == Tint::kDoubtful ? kYellow : kRed;
  return fmt::format("\033[{}m{}\033[0m", colour, text);
}

}  // namespace coimg
