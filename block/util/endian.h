// Integers as they lie on disk. Reading and assigning swaps where needed, so the swap cannot be forgotten; they have
// no alignment and may be members of on-disk structs.
#pragma once

#include <bit>
#include <cstdint>
#include <cstring>

namespace coimg {

template <typename T, std::endian kOrder>
class DiskInt {
 public:
  DiskInt() = default;
  DiskInt(T value) { *this = value; }  // NOLINT(google-explicit-constructor): stands for the integer
  DiskInt& operator=(T value) {
    const T stored = swap(value);
    std::memcpy(bytes_, &stored, sizeof(T));
    return *this;
  }
  operator T() const {  // NOLINT(google-explicit-constructor)
    T stored;
    std::memcpy(&stored, bytes_, sizeof(T));
    return swap(stored);
  }

 private:
  static constexpr T swap(T value) {
    if constexpr (kOrder == std::endian::native) {
      return value;
    } else if constexpr (sizeof(T) == 2) {
      return static_cast<T>(__builtin_bswap16(value));
    } else if constexpr (sizeof(T) == 4) {
      return __builtin_bswap32(value);
    } else {
      static_assert(sizeof(T) == 8);
      return __builtin_bswap64(value);
    }
  }
  unsigned char bytes_[sizeof(T)];
};

using be16 = DiskInt<uint16_t, std::endian::big>;
using be32 = DiskInt<uint32_t, std::endian::big>;
using be64 = DiskInt<uint64_t, std::endian::big>;
using le16 = DiskInt<uint16_t, std::endian::little>;
using le32 = DiskInt<uint32_t, std::endian::little>;
using le64 = DiskInt<uint64_t, std::endian::little>;

static_assert(sizeof(be64) == 8 && alignof(be64) == 1);

}  // namespace coimg
