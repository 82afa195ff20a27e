// The qcow2 format on disk: structs, masks, limits and the meaning of table entries. No I/O here.
//
// Format: qcow2, sections "Header", "Refcounts", "L1 and L2 tables", "Limits".
#pragma once

#include <cassert>
#include <cstddef>
#include <cstdint>
#include <span>

#include "block/util/endian.h"
#include "block/util/math.h"
#include "block/util/offsets.h"
#include "block/util/result.h"

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
inline constexpr uint32_t kDefaultRefcountOrder = 4;  // the only one of version 2
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

/// With extended L2 entries a cluster is made of this many subclusters.
inline constexpr uint32_t kSubclusters = 32;

/// Derived quantities of an image; constant after open.
class Geometry {
 public:
  constexpr Geometry(uint32_t cluster_bits, uint32_t refcount_order, bool extended_l2 = false,
                     bool external_data = false)
      : cluster_bits_(cluster_bits),
        refcount_order_(refcount_order),
        extended_l2_(extended_l2),
        external_data_(external_data) {}

  [[nodiscard]] constexpr uint32_t cluster_bits() const { return cluster_bits_; }
  [[nodiscard]] constexpr uint64_t cluster_size() const { return uint64_t{1} << cluster_bits_; }
  [[nodiscard]] constexpr bool extended_l2() const { return extended_l2_; }
  /// Guest data are in another file, each cluster at its guest offset, and have no refcounts.
  [[nodiscard]] constexpr bool external_data() const { return external_data_; }
  [[nodiscard]] constexpr uint64_t l2_entry_bytes() const { return extended_l2_ ? 16 : 8; }
  [[nodiscard]] constexpr uint64_t l2_entries() const { return cluster_size() / l2_entry_bytes(); }
  /// The unit that has a state of its own: a subcluster, or a cluster without extended L2 entries.
  [[nodiscard]] constexpr uint64_t state_unit() const {
    return extended_l2_ ? cluster_size() / kSubclusters : cluster_size();
  }
  [[nodiscard]] constexpr uint32_t subcluster_of(uint64_t offset) const {
    return static_cast<uint32_t>(in_cluster(offset) / (cluster_size() / kSubclusters));
  }
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
  bool extended_l2_;
  bool external_data_;
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

/// The second word of an extended L2 entry: two bits for each subcluster.
class SubclusterMap {
 public:
  constexpr SubclusterMap() = default;
  constexpr explicit SubclusterMap(uint64_t raw) : raw_(raw) {}
  static constexpr SubclusterMap all_stored() { return SubclusterMap(0xffffffff); }
  static constexpr SubclusterMap all_zero() { return SubclusterMap(uint64_t{0xffffffff} << kSubclusters); }

  /// Subclusters [first, end), as a mask for the functions below.
  static constexpr uint32_t mask(uint32_t first, uint32_t end) {
    return static_cast<uint32_t>(((uint64_t{1} << end) - 1) & ~((uint64_t{1} << first) - 1));
  }

  [[nodiscard]] constexpr uint64_t raw() const { return raw_; }
  /// Subclusters whose data are in the host cluster, and those that read as zeros.
  [[nodiscard]] constexpr uint32_t stored() const { return static_cast<uint32_t>(raw_); }
  [[nodiscard]] constexpr uint32_t zero() const { return static_cast<uint32_t>(raw_ >> kSubclusters); }
  [[nodiscard]] constexpr bool contradicts_itself() const { return (stored() & zero()) != 0; }

  [[nodiscard]] constexpr SubclusterMap with_stored(uint32_t mask) const {
    return make(stored() | mask, zero() & ~mask);
  }
  [[nodiscard]] constexpr SubclusterMap with_zero(uint32_t mask) const { return make(stored() & ~mask, zero() | mask); }

  friend constexpr bool operator==(SubclusterMap, SubclusterMap) = default;

 private:
  static constexpr SubclusterMap make(uint32_t stored, uint32_t zero) {
    return SubclusterMap(uint64_t{zero} << kSubclusters | stored);
  }

  uint64_t raw_ = 0;
};

/// An entry of an L2 table. Only extended ones have a map of subclusters; unless compressed, their bit 0
/// has no meaning and is dropped.
///
/// A cluster has a place when it has a host offset. In an external data file the guest's first cluster lies at offset
/// 0, where COPIED tells that it has one.
class L2Entry {
 public:
  constexpr L2Entry() = default;
  constexpr explicit L2Entry(uint64_t raw, SubclusterMap map = {}, bool external_data = false)
      : raw_(raw), map_(map), placed_((raw & (kEntryOffsetMask | (external_data ? kEntryCopied : 0))) != 0) {}
  /// A cluster with data in all of it.
  static constexpr L2Entry normal(HostOffset host, bool copied = true) {
    return L2Entry(host.v | (copied ? kEntryCopied : 0), SubclusterMap::all_stored(), true);
  }
  static constexpr L2Entry zero_plain(const Geometry& geometry) {
    return geometry.extended_l2() ? L2Entry(0, SubclusterMap::all_zero()) : L2Entry(kL2Zero);
  }
  /// A stream of `bytes` bytes at `offset`.
  static constexpr L2Entry compressed(const Geometry& geometry, HostOffset offset, uint64_t bytes) {
    const uint64_t additional = (offset.v + bytes - 1) / kSectorSize - offset.v / kSectorSize;
    return L2Entry(kL2Compressed | (additional << geometry.compressed_offset_bits()) | offset.v);
  }
  /// The same host cluster, which reads as zeros from now on. Not for compressed clusters.
  [[nodiscard]] constexpr L2Entry zeroed(const Geometry& geometry) const {
    const uint64_t place = raw_ & (kEntryOffsetMask | kEntryCopied);
    if (!geometry.extended_l2()) return L2Entry(place | kL2Zero);
    return L2Entry(place, SubclusterMap::all_zero(), geometry.external_data());
  }
  [[nodiscard]] constexpr L2Entry with_map(SubclusterMap map) const {
    L2Entry entry = *this;
    entry.map_ = map;
    return entry;
  }
  [[nodiscard]] constexpr L2Entry with_copied(bool copied) const {
    L2Entry entry = *this;
    entry.raw_ = (raw_ & ~kEntryCopied) | (copied ? kEntryCopied : 0);
    return entry;
  }

  [[nodiscard]] constexpr uint64_t raw() const { return raw_; }
  [[nodiscard]] constexpr SubclusterMap map() const { return map_; }
  /// What the cluster is. With extended L2 entries only whether it has a place, or is compressed: see type_at().
  [[nodiscard]] constexpr ClusterType type() const {
    if (raw_ & kL2Compressed) return ClusterType::kCompressed;
    if (raw_ & kL2Zero) return host().v ? ClusterType::kZeroAllocated : ClusterType::kZeroPlain;
    return placed_ ? ClusterType::kNormal : ClusterType::kUnallocated;
  }
  [[nodiscard]] constexpr bool placed() const { return placed_; }
  /// What a subcluster of an extended entry is. kUnallocated may have a place that is not in use yet.
  [[nodiscard]] constexpr ClusterType type_at(uint32_t subcluster) const {
    if (raw_ & kL2Compressed) return ClusterType::kCompressed;
    if (map_.stored() >> subcluster & 1) return ClusterType::kNormal;
    if (map_.zero() >> subcluster & 1) return host().v ? ClusterType::kZeroAllocated : ClusterType::kZeroPlain;
    return ClusterType::kUnallocated;
  }
  /// Has a host cluster that holds no data.
  [[nodiscard]] constexpr bool has_empty_place(const Geometry& geometry) const {
    if (geometry.extended_l2()) return type() == ClusterType::kNormal && map_.stored() == 0;
    return type() == ClusterType::kZeroAllocated;
  }
  /// The same for the guest, without a host cluster. For entries with an empty place.
  [[nodiscard]] constexpr L2Entry without_place(const Geometry& geometry) const {
    return geometry.extended_l2() ? L2Entry(0, map_) : L2Entry(kL2Zero);
  }
  /// Of entries that are not compressed.
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
  SubclusterMap map_;
  bool placed_ = false;
};

/// A stretch of an L2 table in memory.
class L2Entries {
 public:
  L2Entries(std::span<std::byte> bytes, const Geometry& geometry)
      : words_(reinterpret_cast<be64*>(bytes.data())),
        size_(bytes.size() / geometry.l2_entry_bytes()),
        extended_(geometry.extended_l2()),
        external_data_(geometry.external_data()) {}

  [[nodiscard]] size_t size() const { return size_; }
  [[nodiscard]] L2Entry operator[](size_t i) const {
    if (!extended_) return L2Entry(words_[i], {}, external_data_);
    const uint64_t raw = words_[2 * i];
    return L2Entry(raw & kL2Compressed ? raw : raw & ~kL2Zero, SubclusterMap(words_[2 * i + 1]), external_data_);
  }
  void store(size_t i, L2Entry entry) const {
    if (!extended_) {
      words_[i] = entry.raw();
    } else {
      words_[2 * i] = entry.raw();
      words_[2 * i + 1] = entry.map().raw();
    }
  }
  /// Whether both are stored in the same way.
  [[nodiscard]] bool same(L2Entry a, L2Entry b) const {
    return a.raw() == b.raw() && (!extended_ || a.map() == b.map());
  }
  /// Entries [first, first + count).
  [[nodiscard]] L2Entries part(size_t first, size_t count) const {
    return {words_ + first * (extended_ ? 2 : 1), count, *this};
  }
  /// The words of standard entries.
  [[nodiscard]] const be64* words() const { return words_; }

 private:
  L2Entries(be64* words, size_t size, const L2Entries& whole)
      : words_(words), size_(size), extended_(whole.extended_), external_data_(whole.external_data_) {}

  be64* words_;
  size_t size_;
  bool extended_;
  bool external_data_;
};

/// Refcount `index` of a refcount block, entries of 1 << order bits.
uint64_t read_refcount(const std::byte* block, uint64_t index, uint32_t order);
void write_refcount(std::byte* block, uint64_t index, uint32_t order, uint64_t value);

/// Clusters that refcount table and blocks take in an image of `clusters` other clusters (specs 5.6, not generous).
struct RefcountMetadata {
  uint64_t table_clusters = 0, blocks = 0;
};
RefcountMetadata refcount_metadata_for(const Geometry& geometry, uint64_t clusters);

/// What an image gets when its refcount table has no slot for another block: blocks that are missing, and behind them
/// the new table, all described by blocks that are there then.
struct GrownRefcountTable {
  HostCluster first;
  uint64_t blocks = 0, table_clusters = 0;
};
/// `described_blocks`: how many blocks are in use in front of it, full or not. The table gets half again as many
/// entries as it needs, as far as the format allows that, so that growing is rare.
/// Errors: EFBIG when it allows no table that is large enough.
Result<GrownRefcountTable> grow_refcount_table(const Geometry& geometry, uint64_t described_blocks);

}  // namespace coimg::qcow2
