#include "cmd/size_format.h"

#include <array>
#include <cmath>
#include <cstdio>

namespace coimg {

std::string render_size(uint64_t bytes) {
  constexpr std::array<const char*, 7> kUnits = {"B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"};
  // A unit serves up to 999, not up to 1023: seen from 1000/1024 of the value, that is a power of two.
  int exponent = 0;
  std::frexp(static_cast<double>(bytes) / (1000.0 / 1024.0), &exponent);
  const int unit = exponent <= 0 ? 0 : (exponent - 1) / 10;
  char text[32];
  std::snprintf(text, sizeof text, "%0.3g %s", std::ldexp(static_cast<double>(bytes), -10 * unit),
                kUnits[static_cast<size_t>(unit)]);
  return text;
}

}  // namespace coimg
