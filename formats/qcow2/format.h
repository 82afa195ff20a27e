// The qcow2 format on disk: structs, masks, limits and the meaning of table entries. No I/O here.
//
// Format: qcow2, sections "Header", "Refcounts", "L1 and L2 tables", "Limits".
#pragma once

#include <cassert>
#include <cstddef>
#include <cstdint>

#include "block/util/endian.h"
#include "block/util/math.h"
#include "block/util/offsets.h"

namespace coimg::qcow2 {

inline constexpr uint32_t kMagic = 0x514649fb;  // "QFI\xfb"

/// The first 72 bytes: all of a version 2 header.
struct DiskHeaderV2 {
  be32 magic;
  be32 version;
  be64 backing_file_offset;
  be32 backing_file_size;
  be32 cluster_bits;
  be64 size;
  be32 crypt_method;
  be32 l1_size;
  be64 l1_table_offset;
  be64 refcount_table_offset;
  be32 refcount_table_clusters;
  be32 nb_snapshots;
  be64 snapshots_offset;
};
static_assert(sizeof(DiskHeaderV2) == 72);

/// Version 3, up to the last field that this program knows.
struct DiskHeaderV3 {
  DiskHeaderV2 v2;
  be64 incompatible_features;
  be64 compatible_features;
  be64 autoclear_features;
  be32 refcount_order;
  be32 header_length;
  uint8_t compression_type;
  uint8_t padding[7];
};
static_assert(sizeof(DiskHeaderV3) == 112);
static_assert(offsetof(DiskHeaderV3, refcount_order) == 96 && offsetof(DiskHeaderV3, compression_type) == 104);

inline constexpr uint32_t kMinHeaderLengthV3 = 104;
inline constexpr uint32_t kHeaderLengthV3 = 112;

// Limits, each what qemu-img accepts as well.
inline constexpr uint32_t kMinClusterBits = 9, kMaxClusterBits = 21;
inline constexpr uint32_t kMaxRefcountOrder = 6;
inline constexpr uint64_t kMaxL1Bytes = 32 * kMiB;
inline constexpr uint64_t kMaxL1Entries = kMaxL1Bytes / 8;
inline constexpr uint64_t kMaxRefcountTableBytes = 8 * kMiB;
inline constexpr uint32_t kMaxBackingNameBytes = 1023;
inline constexpr uint32_t kMaxBackingFormatBytes = 15;
inline constexpr uint32_t kMaxSnapshots = 65536;
inline constexpr uint64_t kMaxSnapshotTableBytes = 64 * kMiB;
inline constexpr uint32_t kMaxSnapshotExtraBytes = 1024;
inline constexpr uint32_t kMaxBitmaps = 65535;
inline constexpr uint64_t kMaxBitmapDirectoryBytes = uint64_t{65535} * 1024;
/// First host offset that an L1 or L2 entry cannot express.
inline constexpr uint64_t kMaxHostOffset = uint64_t{1} << 56;

enum IncompatibleFeature : uint64_t {
  kDirty = 1u << 0,
  kCorrupt = 1u << 1,
  kExternalDataFile = 1u << 2,
  kCompressionType = 1u << 3,
  kExtendedL2 = 1u << 4,
  kKnownIncompatible = 0x1f,
};
enum CompatibleFeature : uint64_t { kLazyRefcounts = 1u << 0 };
enum AutoclearFeature : uint64_t { kBitmapsValid = 1u << 0, kRawExternalData = 1u << 1 };

enum class CryptMethod : uint32_t { kNone = 0, kAes = 1, kLuks = 2 };
enum class CompressionType : uint8_t { kZlib = 0, kZstd = 1 };

enum class ExtensionType : uint32_t {
  kEnd = 0,
  kBackingFormat = 0xe2792aca,
  kFeatureNameTable = 0x6803f857,
  kBitmaps = 0x23852875,
  kEncryptionHeader = 0x0537be77,
  kDataFileName = 0x44415441,
};

inline constexpr uint64_t kEntryOffsetMask = 0x00fffffffffffe00;
inline constexpr uint64_t kEntryCopied = uint64_t{1} << 63;
inline constexpr uint64_t kL1ReservedMask = 0x7f000000000001ff;
inline constexpr uint64_t kL2ReservedMask = 0x3f000000000001fe;
inline constexpr uint64_t kL2Compressed = uint64_t{1} << 62;
inline constexpr uint64_t kL2Zero = 1;
inline constexpr uint64_t kRefcountTableOffsetMask = 0xfffffffffffffe00;
inline constexpr uint64_t kRefcountTableReservedMask = 0x1ff;

/// Derived quantities of an image; constant after open except for nothing at all.
class Geometry {
 public:
  constexpr Geometry(uint32_t cluster_bits, uint32_t refcount_order)
      : cluster_bits_(cluster_bits), refcount_order_(refcount_order) {}

  [[nodiscard]] constexpr uint32_t cluster_bits() const { return cluster_bits_; }
  [[nodiscard]] constexpr uint64_t cluster_size() const { return uint64_t{1} << cluster_bits_; }
  [[nodiscard]] constexpr uint64_t l2_entries() const { return cluster_size() / 8; }
  /// Guest bytes that one L2 table maps.
  [[nodiscard]] constexpr uint64_t l2_coverage() const { return l2_entries() << cluster_bits_; }
  [[nodiscard]] constexpr uint32_t refcount_order() const { return refcount_order_; }
  [[nodiscard]] constexpr uint32_t refcount_bits() const { return 1u << refcount_order_; }
  [[nodiscard]] constexpr uint64_t refcount_max() const {
    return refcount_order_ == 6 ? ~uint64_t{0} : (uint64_t{1} << refcount_bits()) - 1;
  }
  [[nodiscard]] constexpr uint64_t refcounts_per_block() const { return (cluster_size() * 8) >> refcount_order_; }

  [[nodiscard]] constexpr uint64_t l1_index(GuestOffset offset) const { return offset.v / l2_coverage(); }
  [[nodiscard]] constexpr uint64_t l2_index(GuestOffset offset) const {
    return (offset.v >> cluster_bits_) & (l2_entries() - 1);
  }
  [[nodiscard]] constexpr uint64_t in_cluster(uint64_t offset) const { return offset & (cluster_size() - 1); }
  [[nodiscard]] constexpr uint64_t cluster_down(uint64_t offset) const { return align_down(offset, cluster_size()); }
  /// `offset` must be at most 2^63.
  [[nodiscard]] constexpr uint64_t cluster_up(uint64_t offset) const { return align_up(offset, cluster_size()); }
  [[nodiscard]] constexpr uint64_t clusters_for(uint64_t bytes) const { return div_ceil(bytes, cluster_size()); }
  /// L1 entries that a disk of `size` bytes needs.
  [[nodiscard]] constexpr uint64_t l1_needed(uint64_t size) const { return div_ceil(size, l2_coverage()); }
  [[nodiscard]] constexpr HostCluster host_cluster(HostOffset offset) const {
    return HostCluster(offset.v >> cluster_bits_);
  }
  [[nodiscard]] constexpr HostOffset host_offset(HostCluster cluster) const {
    return HostOffset(cluster.v << cluster_bits_);
  }

  /// Number of low bits of a compressed entry that hold its byte offset.
  [[nodiscard]] constexpr uint32_t compressed_offset_bits() const { return 70 - cluster_bits_; }

 private:
  uint32_t cluster_bits_;
  uint32_t refcount_order_;
};

/// An entry of an L1 table.
class L1Entry {
 public:
  constexpr L1Entry() = default;
  constexpr explicit L1Entry(uint64_t raw) : raw_(raw) {}
  static constexpr L1Entry table(HostOffset l2_table, bool copied) {
    return L1Entry(l2_table.v | (copied ? kEntryCopied : 0));
  }
  [[nodiscard]] constexpr uint64_t raw() const { return raw_; }
  [[nodiscard]] constexpr HostOffset l2_table() const { return HostOffset(raw_ & kEntryOffsetMask); }
  [[nodiscard]] constexpr bool has_table() const { return l2_table().v != 0; }
  [[nodiscard]] constexpr bool copied() const { return (raw_ & kEntryCopied) != 0; }
  [[nodiscard]] constexpr uint64_t reserved() const { return raw_ & kL1ReservedMask; }

 private:
  uint64_t raw_ = 0;
};

/// What a guest cluster is (specs: "Standard L2 entry", classification).
enum class ClusterType { kUnallocated, kZeroPlain, kZeroAllocated, kNormal, kCompressed };

/// Where a compressed stream lies: an upper bound of its bytes, of any alignment.
struct CompressedRange {
  HostOffset offset;
  uint64_t bytes = 0;
};

/// An entry of a standard L2 table.
class L2Entry {
 public:
  constexpr L2Entry() = default;
  constexpr explicit L2Entry(uint64_t raw) : raw_(raw) {}
  static constexpr L2Entry normal(HostOffset host, bool copied = true) {
    return L2Entry(host.v | (copied ? kEntryCopied : 0));
  }
  static constexpr L2Entry zero_plain() { return L2Entry(kL2Zero); }
  /// A stream of `bytes` bytes at `offset`.
  static constexpr L2Entry compressed(const Geometry& geometry, HostOffset offset, uint64_t bytes) {
    const uint64_t additional = (offset.v + bytes - 1) / kSectorSize - offset.v / kSectorSize;
    return L2Entry(kL2Compressed | (additional << geometry.compressed_offset_bits()) | offset.v);
  }

  [[nodiscard]] constexpr uint64_t raw() const { return raw_; }
  [[nodiscard]] constexpr ClusterType type() const {
    if (raw_ & kL2Compressed) return ClusterType::kCompressed;
    if (raw_ & kL2Zero) return host().v ? ClusterType::kZeroAllocated : ClusterType::kZeroPlain;
    return host().v ? ClusterType::kNormal : ClusterType::kUnallocated;
  }
  /// Of standard entries.
  [[nodiscard]] constexpr HostOffset host() const { return HostOffset(raw_ & kEntryOffsetMask); }
  [[nodiscard]] constexpr bool copied() const { return (raw_ & kEntryCopied) != 0; }
  [[nodiscard]] constexpr uint64_t reserved() const { return raw_ & kL2ReservedMask; }
  [[nodiscard]] constexpr CompressedRange compressed_range(const Geometry& geometry) const {
    const uint32_t bits = geometry.compressed_offset_bits();
    const uint64_t offset = raw_ & ((uint64_t{1} << bits) - 1);
    const uint64_t sectors = ((raw_ >> bits) & ((uint64_t{1} << (geometry.cluster_bits() - 8)) - 1)) + 1;
    return {HostOffset(offset), sectors * kSectorSize - offset % kSectorSize};
  }

 private:
  uint64_t raw_ = 0;
};

/// Refcount `index` of a refcount block, entries of 1 << order bits.
uint64_t read_refcount(const std::byte* block, uint64_t index, uint32_t order);
void write_refcount(std::byte* block, uint64_t index, uint32_t order, uint64_t value);

/// Clusters that refcount table and blocks take in an image of `clusters` other clusters (specs 5.6, not generous).
struct RefcountMetadata {
  uint64_t table_clusters = 0, blocks = 0;
};
RefcountMetadata refcount_metadata_for(const Geometry& geometry, uint64_t clusters);

}  // namespace coimg::qcow2
