// Arithmetic on sizes and offsets that cannot go wrong silently.
#pragma once

#include <bit>
#include <cassert>
#include <concepts>
#include <cstdint>
#include <optional>

namespace coimg {

inline constexpr uint64_t kSectorSize = 512;
inline constexpr uint64_t kKiB = 1024, kMiB = 1024 * kKiB, kGiB = 1024 * kMiB, kTiB = 1024 * kGiB;

/// Largest offset that the host's file interface can express, plus one.
inline constexpr uint64_t kMaxFileOffset = uint64_t{1} << 63;

/// `alignment` is a power of two; the result must not exceed 64 bits.
constexpr uint64_t align_down(uint64_t value, uint64_t alignment) { return value & ~(alignment - 1); }
constexpr uint64_t align_up(uint64_t value, uint64_t alignment) { return align_down(value + alignment - 1, alignment); }
constexpr bool is_aligned(uint64_t value, uint64_t alignment) { return (value & (alignment - 1)) == 0; }
constexpr uint64_t div_ceil(uint64_t value, uint64_t divisor) { return value / divisor + (value % divisor != 0); }

/// The sum, or nothing when it does not fit.
constexpr std::optional<uint64_t> checked_add(uint64_t a, uint64_t b) {
  uint64_t sum = 0;
  if (__builtin_add_overflow(a, b, &sum)) return std::nullopt;
  return sum;
}
constexpr std::optional<uint64_t> checked_mul(uint64_t a, uint64_t b) {
  uint64_t product = 0;
  if (__builtin_mul_overflow(a, b, &product)) return std::nullopt;
  return product;
}

/// True when [offset, offset + bytes) lies within [0, limit) without wrapping.
constexpr bool range_within(uint64_t offset, uint64_t bytes, uint64_t limit) {
  return offset <= limit && bytes <= limit - offset;
}

}  // namespace coimg
