#include "cmd/io/arguments.h"

#include <cerrno>
#include <utility>

#include <fmt/format.h>

#include "block/options.h"
#include "block/util/math.h"
#include "cmd/getopt_compat.h"
#include "cmd/sizes.h"

namespace coimg {

IoArguments split_io_arguments(std::string_view letters, std::span<const std::string> words) {
  std::vector<GetoptOption> table;
  for (size_t i = 0; i < letters.size(); ++i) {
    if (letters[i] == ':') continue;
    const bool takes_value = i + 1 < letters.size() && letters[i + 1] == ':';
    table.push_back({.short_letters = std::string(1, letters[i]), .long_names = {}, .takes_value = takes_value});
  }
  GetoptResult split = parse_like_getopt(table, words, OperandOrder::kAnywhere);

  IoArguments arguments;
  arguments.operands = std::move(split.operands);
  arguments.mistake = std::move(split.getopt_message);
  // There are no long options, so to getopt() "--x" begins with the letter '-'.
  if (arguments.mistake.starts_with("unrecognized")) arguments.mistake = "invalid option -- '-'";
  for (size_t i = 0; i < split.words.size(); ++i) {
    IoArguments::Option option{.letter = split.words[i][1], .value = {}};
    const size_t place = letters.find(option.letter);
    if (place + 1 < letters.size() && letters[place + 1] == ':') option.value = std::move(split.words[++i]);
    arguments.options.push_back(std::move(option));
  }
  return arguments;
}

std::vector<std::string> split_io_line(std::string_view line) {
  std::vector<std::string> words;
  while (!line.empty()) {
    const size_t end = line.find(' ');
    if (end != 0) words.emplace_back(line.substr(0, end));
    line.remove_prefix(end == std::string_view::npos ? line.size() : end + 1);
  }
  return words;
}

Result<uint64_t> parse_io_number(const std::string& text) {
  const auto number = parse_size(text, kMaxOperandSize);
  if (number.has_value()) return *number;
  const char* const problem = number.error() == SizeParseError::kRange
                                  ? "argument too large"
                                  : "non-numeric argument, or extraneous/unrecognized suffix";
  return Error(EINVAL, fmt::format("Parsing error: {} -- {}", problem, text));
}

Result<std::byte> parse_io_pattern(const std::string& text) {
  const auto value = parse_count(text);
  if (value.has_value() && *value >= 0 && *value <= UINT8_MAX) return static_cast<std::byte>(*value);
  return Error(EINVAL, fmt::format("{} is not a valid pattern byte", text));
}

Result<std::vector<uint64_t>> parse_io_lengths(std::span<const std::string> texts) {
  std::vector<uint64_t> lengths;
  uint64_t total = 0;
  for (const std::string& text : texts) {
    const uint64_t length = COIMG_TRY(parse_io_number(text));
    if (length > kMaxIoBytes) {
      return Error(EINVAL, fmt::format("Argument '{}' exceeds maximum size {}", text, kMaxIoBytes));
    }
    total += length;  // both are small
    if (total > kMaxIoBytes) {
      return Error(EINVAL, fmt::format("The total number of bytes exceed the maximum size {}", kMaxIoBytes));
    }
    lengths.push_back(length);
  }
  return lengths;
}

Result<void> check_sector_aligned(uint64_t value, std::string_view what) {
  if (is_aligned(value, kSectorSize)) return {};
  return Error(EINVAL, fmt::format("{} is not a sector-aligned value for '{}'", value, what));
}

}  // namespace coimg
