// Hexadecimal numbers as C prints them.
#pragma once

#include <fmt/format.h>

#include <cstdint>
#include <string>

namespace coimg {

/// As C's "%#x" in messages that people know: "0x10000", but "0" for zero.
inline std::string c_hex(uint64_t value) { return value == 0 ? "0" : fmt::format("{:#x}", value); }

}  // namespace coimg
