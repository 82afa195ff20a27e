// ClusterCounts: how many references check found to each host cluster. No I/O.
#pragma once

#include <array>
#include <cassert>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "block/util/offsets.h"

namespace coimg::qcow2 {

/// A sparse array of counters, one a host cluster, each with two marks about the active tables' COPIED flags.
///
/// Memory: a byte a cluster (16 MiB for a TiB of 64 KiB clusters), taken in pieces when the first cluster of a piece is
/// counted, so that holes cost next to nothing. Pieces are small, as a damaged table may refer to clusters all over a
/// huge file. A piece in which a counter outgrows 6 bits, as with many snapshots, takes two bytes a cluster more; one
/// with a counter of more than 16 bits, another eight.
class ClusterCounts {
 public:
  static constexpr unsigned kChunkBits = 8;
  static constexpr uint64_t kChunkClusters = uint64_t{1} << kChunkBits;

  /// Layout of a narrow counter. A count of kNarrowMax stands for "look into the wide ones".
  static constexpr uint8_t kCountMask = 0x3f, kNarrowMax = kCountMask;
  static constexpr uint8_t kSeenCopied = 0x40;    ///< an active entry points here and has COPIED set
  static constexpr uint8_t kSeenUncopied = 0x80;  ///< an active entry points here and has COPIED clear

  /// For clusters below `limit`, counting up to `max` (the image's largest refcount). `limit` has been bounded by the
  /// caller; the table of pieces takes 8 bytes per 256 clusters.
  ClusterCounts(uint64_t limit, uint64_t max);

  [[nodiscard]] uint64_t limit() const { return limit_; }
  [[nodiscard]] uint64_t max() const { return max_; }

  /// Adds `times` references and the marks; returns how many did not fit.
  uint64_t add(HostCluster cluster, uint64_t times, uint8_t marks) {
    assert(cluster.v < limit_);
    Chunk* const chunk = chunks_[cluster.v >> kChunkBits].get();
    if (chunk && times == 1) [[likely]] {
      uint8_t& counter = chunk->narrow[cluster.v & (kChunkClusters - 1)];
      if ((counter & kCountMask) < quick_max_) [[likely]] {
        counter = static_cast<uint8_t>((counter + 1) | marks);
        return 0;
      }
    }
    return add_slowly(cluster, times, marks);
  }

  /// Adds one reference and the marks to each of `count` clusters in a row. Returns how many of them it did: it stops
  /// at those that take add().
  uint64_t add_row(HostCluster first, uint64_t count, uint8_t marks);

  [[nodiscard]] uint64_t get(HostCluster cluster) const;
  /// Replaces the count; the marks stay. `value` may exceed max().
  void set(HostCluster cluster, uint64_t value);
  [[nodiscard]] uint8_t marks(HostCluster cluster) const;

  /// The narrow counters from `first` on, up to the end of their piece; null when all of the piece is zero.
  [[nodiscard]] const uint8_t* narrow(HostCluster first) const {
    const Chunk* const chunk = chunks_[first.v >> kChunkBits].get();
    return chunk ? &chunk->narrow[first.v & (kChunkClusters - 1)] : nullptr;
  }
  /// Whether a cluster of [first, end) has a count.
  [[nodiscard]] bool any(HostCluster first, HostCluster end) const;
  /// Whether [first, end) touches no piece that has ever been counted in; any() without looking at counters.
  [[nodiscard]] bool untouched(HostCluster first, HostCluster end) const;
  /// The first cluster at or behind `from` without a count; limit() when there is none.
  [[nodiscard]] HostCluster find_free(HostCluster from) const;

 private:
  static constexpr uint16_t kWideMax = UINT16_MAX;
  struct Wide {
    std::array<uint16_t, kChunkClusters> counts;  ///< valid where the narrow count is kNarrowMax
    std::unique_ptr<uint64_t[]> huge;             ///< valid where the wide count is kWideMax
  };
  struct Chunk {
    std::array<uint8_t, kChunkClusters> narrow{};
    std::unique_ptr<Wide> wide;
  };
  Chunk& chunk_of(HostCluster cluster);
  uint64_t add_slowly(HostCluster cluster, uint64_t times, uint8_t marks);
  static void store(Chunk& chunk, size_t index, uint64_t value);
  static uint64_t load(const Chunk& chunk, size_t index);

  uint64_t limit_, max_;
  uint8_t quick_max_;                           ///< a narrow count below this may simply be incremented
  std::vector<std::unique_ptr<Chunk>> chunks_;  ///< null where nothing was ever counted
};

}  // namespace coimg::qcow2
