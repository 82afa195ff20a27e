// Layout of an add-cow file: the header's fixed fields, limits, and where the bitmap lies. No I/O.
//
//     0              76                      header size                   header size + area
//     | fixed fields | names, zeros elsewhere | COW bitmap: one bit a cluster |
//
// Integers are little-endian. The header takes a whole cluster, the bitmap a whole number of them.
//
// Format: add-cow, section "Layout of the add-cow file".
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

#include "block/util/endian.h"
#include "block/util/math.h"
#include "block/util/offsets.h"

namespace coimg::add_cow {

inline constexpr uint32_t kMagic = 0x574f4341;  // "ACOW"
inline constexpr uint32_t kMinClusterBits = 12, kMaxClusterBits = 21;
inline constexpr uint64_t kMinHeaderBytes = 4096;
inline constexpr uint64_t kDefaultClusterBytes = 65536;

/// Names that the format's first implementation can read. It is what images are exchanged with.
inline constexpr size_t kMaxBackingNameBytes = 1023, kMaxImageNameBytes = 4095;

/// Bits of compatible_features.
inline constexpr uint64_t kAllAllocated = 1;

/// A format name: padded with zeros, of which there is one at least.
using DiskFormatName = std::array<char, 16>;
inline constexpr size_t kMaxFormatNameBytes = sizeof(DiskFormatName) - 1;

struct DiskHeader {
  le32 magic;
  le32 backing_offset;
  le32 backing_bytes;
  le32 image_offset;
  le32 image_bytes;
  le32 cluster_bits;
  le64 features;
  le64 compatible_features;
  le32 header_bytes;
  DiskFormatName backing_format;
  DiskFormatName image_format;
};
static_assert(sizeof(DiskHeader) == 76);
static_assert(offsetof(DiskHeader, compatible_features) == 32 && offsetof(DiskHeader, backing_format) == 44);

/// Where names may begin.
inline constexpr uint64_t kNamesOffset = sizeof(DiskHeader);

/// What follows from the size of a cluster.
struct Geometry {
  uint32_t cluster_bits = 16;

  [[nodiscard]] constexpr uint64_t cluster_bytes() const { return uint64_t{1} << cluster_bits; }
  [[nodiscard]] constexpr uint64_t header_bytes() const {
    return cluster_bytes() > kMinHeaderBytes ? cluster_bytes() : kMinHeaderBytes;
  }
  [[nodiscard]] constexpr GuestCluster cluster_of(uint64_t offset) const {
    return GuestCluster(offset >> cluster_bits);
  }
  [[nodiscard]] constexpr uint64_t start_of(GuestCluster cluster) const { return cluster.v << cluster_bits; }
  [[nodiscard]] constexpr uint64_t cluster_down(uint64_t offset) const { return align_down(offset, cluster_bytes()); }
  [[nodiscard]] constexpr uint64_t cluster_up(uint64_t offset) const { return align_up(offset, cluster_bytes()); }
  /// Of a disk; the last one may be partial.
  [[nodiscard]] constexpr uint64_t clusters(uint64_t virtual_size) const {
    return div_ceil(virtual_size, cluster_bytes());
  }
  /// Bytes of bitmap that stand for clusters of a disk, and what they are padded to.
  [[nodiscard]] constexpr uint64_t bitmap_bytes(uint64_t virtual_size) const {
    return div_ceil(clusters(virtual_size), 8);
  }
  [[nodiscard]] constexpr uint64_t bitmap_area(uint64_t virtual_size) const {
    return cluster_up(bitmap_bytes(virtual_size));
  }
  /// Length of the add-cow file of a disk.
  [[nodiscard]] constexpr uint64_t file_bytes(uint64_t virtual_size) const {
    return header_bytes() + bitmap_area(virtual_size);
  }
};

}  // namespace coimg::add_cow
