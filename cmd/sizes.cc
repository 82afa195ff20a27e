#include "cmd/sizes.h"

#include <fmt/format.h>

#include <cerrno>
#include <cstdlib>

#include "block/options.h"

namespace coimg {

Result<uint64_t> parse_operand_size(std::string_view text, std::string_view what, uint64_t least, uint64_t most) {
  const auto size = parse_size(text, most);
  if (size.has_value() && *size >= least) return *size;
  if (size.has_value() || size.error() == SizeParseError::kRange) {
    return Error(EINVAL, fmt::format("Invalid {} specified. Must be between {} and {}.", what, least, most));
  }
  return Error(EINVAL, fmt::format("Invalid {} specified. You may use k, M, G, T, P or E suffixes for\n"
                                   "kilobytes, megabytes, gigabytes, terabytes, petabytes and exabytes.",
                                   what));
}

std::optional<int64_t> parse_count(const std::string& text) {
  if (text.empty()) return std::nullopt;
  char* end = nullptr;
  errno = 0;
  const long long value = std::strtoll(text.c_str(), &end, 0);
  if (errno != 0 || *end != '\0') return std::nullopt;
  return value;
}

}  // namespace coimg
