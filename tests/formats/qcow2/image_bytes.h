// ImageBytes: a small sound qcow2 image, made byte by byte without the driver, to be damaged on purpose.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <vector>

#include "block/util/endian.h"
#include "formats/qcow2/format.h"

namespace coimg::qcow2 {

/// One cluster each: header, refcount table, refcount block, L1 table, L2 table, then data; with a snapshot, its table
/// and its L1 table behind the data, which share the L2 table. Guest cluster i lies in the data cluster i.
class ImageBytes {
 public:
  struct Options {
    uint32_t cluster_bits = 12;
    uint32_t refcount_order = 4;
    uint32_t version = 3;
    bool snapshot = false;
  };
  static constexpr uint64_t kDataClusters = 8;
  static constexpr uint64_t kTable = 1, kBlock = 2, kL1 = 3, kL2 = 4, kData = 5;
  static constexpr uint64_t kSnapshots = kData + kDataClusters, kSnapshotL1 = kSnapshots + 1;

  explicit ImageBytes(const Options& options)
      : geometry(options.cluster_bits, options.refcount_order),
        clusters(options.snapshot ? kSnapshotL1 + 1 : kSnapshots),
        bytes(clusters << options.cluster_bits) {
    const uint64_t size = geometry.cluster_size();
    DiskHeaderV3 header{};
    header.v2.magic = kMagic;
    header.v2.version = options.version;
    header.v2.cluster_bits = options.cluster_bits;
    header.v2.size = 64 * size;
    header.v2.l1_size = 1;
    header.v2.l1_table_offset = kL1 * size;
    header.v2.refcount_table_offset = kTable * size;
    header.v2.refcount_table_clusters = 1;
    header.v2.nb_snapshots = options.snapshot ? 1 : 0;
    header.v2.snapshots_offset = options.snapshot ? kSnapshots * size : 0;
    header.refcount_order = options.refcount_order;
    header.header_length = kHeaderLengthV3;
    std::memcpy(bytes.data(), &header, options.version == 2 ? sizeof header.v2 : sizeof header);

    put64(kTable * size, kBlock * size);
    for (uint64_t i = 0; i < clusters; ++i) set_refcount(i, 1);
    const uint64_t copied = options.snapshot ? 0 : kEntryCopied;
    put64(kL1 * size, kL2 * size | copied);
    for (uint64_t i = 0; i < kDataClusters; ++i) {
      put64(l2_entry_at(i), (kData + i) * size | copied);
      std::memset(bytes.data() + (kData + i) * size, static_cast<int>('a' + i), size);
    }
    if (options.snapshot) add_snapshot(size);
  }

  /// Where the entry of guest cluster `i` lies.
  [[nodiscard]] uint64_t l2_entry_at(uint64_t i) const { return kL2 * geometry.cluster_size() + i * 8; }
  [[nodiscard]] uint64_t offset_of(uint64_t cluster) const { return cluster * geometry.cluster_size(); }
  void put64(uint64_t offset, uint64_t value) {
    const be64 stored(value);
    std::memcpy(bytes.data() + offset, &stored, sizeof stored);
  }
  void put32(uint64_t offset, uint32_t value) {
    const be32 stored(value);
    std::memcpy(bytes.data() + offset, &stored, sizeof stored);
  }
  [[nodiscard]] uint64_t get64(uint64_t offset) const {
    be64 stored;
    std::memcpy(static_cast<void*>(&stored), bytes.data() + offset, sizeof stored);
    return stored;
  }
  void set_refcount(uint64_t cluster, uint64_t value) {
    write_refcount(bytes.data() + kBlock * geometry.cluster_size(), cluster, geometry.refcount_order(), value);
  }

  Geometry geometry;
  uint64_t clusters;
  std::vector<std::byte> bytes;

 private:
  void add_snapshot(uint64_t size) {
    set_refcount(kL2, 2);
    for (uint64_t i = 0; i < kDataClusters; ++i) set_refcount(kData + i, 2);
    put64(kSnapshotL1 * size, kL2 * size);
    const uint64_t entry = kSnapshots * size;
    put64(entry, kSnapshotL1 * size);
    put32(entry + 8, 1);               // l1_size
    put32(entry + 12, 1 << 16 | 1);    // lengths of id and name
    put32(entry + 36, 16);             // extra data
    put64(entry + 40 + 8, 64 * size);  // disk size
    bytes[entry + 56] = std::byte{'1'};
    bytes[entry + 57] = std::byte{'s'};
  }
};

}  // namespace coimg::qcow2
