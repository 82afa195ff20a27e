// Numbers on the command line.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "block/util/result.h"

namespace coimg {

/// Largest size that an operand may have.
inline constexpr uint64_t kMaxOperandSize = INT64_MAX;

/// Parses a size with an optional suffix, from `least` to `most`. `what` names it in messages ("image size").
Result<uint64_t> parse_operand_size(std::string_view text, std::string_view what, uint64_t least = 0,
                                    uint64_t most = kMaxOperandSize);

/// Parses a plain count: decimal, 0x or leading-zero octal, no suffix. Nothing when it is none or does not fit.
std::optional<int64_t> parse_count(const std::string& text);

}  // namespace coimg
