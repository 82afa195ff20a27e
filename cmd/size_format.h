// Sizes for people.
#pragma once

#include <cstdint>
#include <string>

namespace coimg {

/// "192 KiB": three significant digits, in the largest unit that keeps the number below 1000.
std::string render_size(uint64_t bytes);

}  // namespace coimg
