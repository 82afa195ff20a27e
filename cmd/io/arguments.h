// The words behind an I/O command: its options, offsets, lengths and patterns.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "block/util/result.h"

namespace coimg {

/// The most that one request may transfer: a 32-bit length, rounded down to sectors.
inline constexpr uint64_t kMaxIoBytes = 2147483136;

/// A command's words, split by the rules of getopt().
struct IoArguments {
  struct Option {
    char letter;
    std::string value;
  };
  std::vector<Option> options;  ///< in order, up to the first mistake
  std::vector<std::string> operands;
  std::string mistake;  ///< in getopt's words; empty for none
};

/// `letters` as for getopt(): a colon behind those that take a value.
IoArguments split_io_arguments(std::string_view letters, std::span<const std::string> words);

/// Words of `line`, which blanks separate; there is no quoting.
std::vector<std::string> split_io_line(std::string_view line);

// Errors are the lines that the tool prints.

/// An offset or length with an optional suffix.
Result<uint64_t> parse_io_number(const std::string& text);
/// The value of -P.
Result<std::byte> parse_io_pattern(const std::string& text);
/// The lengths of a request's pieces, within the limit for each and for all.
Result<std::vector<uint64_t>> parse_io_lengths(std::span<const std::string> texts);
/// `what` is "offset" or "count".
Result<void> check_sector_aligned(uint64_t value, std::string_view what);

}  // namespace coimg
