// Persistent bitmaps on disk: the directory and the entries of bitmap tables.
//
// Format: qcow2, sections "Persistent bitmaps: Directory entry", "Bitmap table and data".
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "block/node.h"
#include "formats/qcow2/format.h"
#include "formats/qcow2/header.h"

namespace coimg::qcow2 {

inline constexpr uint32_t kMaxBitmapNameBytes = 1023;
/// Of the bits of one bitmap.
inline constexpr uint64_t kMaxBitmapBytes = 512 * kMiB;
/// Of all bitmap tables that are looked at: several bitmaps may name one range of the file.
inline constexpr uint64_t kMaxBitmapTablesBytes = 64 * kMiB;

struct BitmapEntry {
  HostOffset table_offset = {};  ///< 0: not stored yet
  uint32_t table_entries = 0;
  bool in_use = false;
  bool automatic = false;  ///< records writes
  uint8_t granularity_bits = 16;
  std::string name = {};
};

/// An entry of a bitmap table: where a cluster of bits is.
class BitmapTableEntry {
 public:
  constexpr BitmapTableEntry() = default;
  constexpr explicit BitmapTableEntry(uint64_t raw) : raw_(raw) {}
  static constexpr BitmapTableEntry all_ones() { return BitmapTableEntry(1); }
  static constexpr BitmapTableEntry stored(HostOffset cluster) { return BitmapTableEntry(cluster.v); }

  [[nodiscard]] constexpr uint64_t raw() const { return raw_; }
  /// 0: all bits are the same, as is_all_ones() says.
  [[nodiscard]] constexpr HostOffset cluster() const { return HostOffset(raw_ & kEntryOffsetMask); }
  [[nodiscard]] constexpr bool is_all_zeros() const { return raw_ == 0; }
  [[nodiscard]] constexpr bool is_all_ones() const { return raw_ == 1; }
  [[nodiscard]] bool valid(const Geometry& geometry) const;

 private:
  uint64_t raw_ = 0;
};

/// Bytes that the bits of a disk of `disk_bytes` take; one bit stands for 1 << granularity_bits bytes.
uint64_t bitmap_data_bytes(uint64_t disk_bytes, uint8_t granularity_bits);
/// Whether a disk can have such a bitmap. Errors: EINVAL for one that takes too much space or none at all.
Result<void> check_bitmap_size(uint64_t disk_bytes, uint8_t granularity_bits);
/// So many clusters of bits at most are allocated and written together.
uint64_t bitmap_clusters_at_once(const Geometry& geometry);

/// EFBIG: the tables of all bitmaps break their limit.
Error too_many_bitmap_tables();

/// Errors: EINVAL for any malformed entry; the image must not be opened then.
Result<std::vector<BitmapEntry>> load_bitmap_directory(BlockNode& file, const Header& header) coroutine_fn;

/// The directory as it is stored. Errors: EFBIG.
Result<std::vector<std::byte>> encode_bitmap_directory(std::span<const BitmapEntry> bitmaps);

}  // namespace coimg::qcow2
