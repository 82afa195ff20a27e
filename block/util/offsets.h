// Guest and host positions as types of their own, so that one cannot be passed for the other.
#pragma once

#include <compare>
#include <cstdint>

namespace coimg {

/// A strong integer: same tag adds counts and compares, different tags do not mix. `.v` is the plain number.
template <typename Tag>
struct StrongInt {
  uint64_t v = 0;
  constexpr StrongInt() = default;
  constexpr explicit StrongInt(uint64_t value) : v(value) {}
  friend constexpr auto operator<=>(StrongInt, StrongInt) = default;
  friend constexpr StrongInt operator+(StrongInt a, uint64_t n) { return StrongInt(a.v + n); }
  friend constexpr StrongInt operator-(StrongInt a, uint64_t n) { return StrongInt(a.v - n); }
  friend constexpr uint64_t operator-(StrongInt a, StrongInt b) { return a.v - b.v; }
  constexpr StrongInt& operator+=(uint64_t n) {
    v += n;
    return *this;
  }
  constexpr StrongInt& operator++() {
    ++v;
    return *this;
  }
};

using GuestOffset = StrongInt<struct GuestOffsetTag>;    ///< byte position on the virtual disk
using HostOffset = StrongInt<struct HostOffsetTag>;      ///< byte position in the image file
using HostCluster = StrongInt<struct HostClusterTag>;    ///< index of a cluster of the image file
using GuestCluster = StrongInt<struct GuestClusterTag>;  ///< index of a cluster of the virtual disk
using ClusterCount = StrongInt<struct ClusterCountTag>;

}  // namespace coimg
