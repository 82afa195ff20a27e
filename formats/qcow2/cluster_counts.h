// ClusterCounts: how many references check found to each host cluster. No I/O.
#pragma once

#include <cassert>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "block/util/offsets.h"

namespace coimg::qcow2 {

/// A sparse array of counters, one a host cluster, each with two marks about the active tables' COPIED flags.
///
/// Memory: two bytes a cluster (32 MiB for a TiB of 64 KiB clusters), taken in pieces when the first cluster of a piece
/// is counted, so that holes cost nothing. A piece in which a counter outgrows 14 bits takes eight bytes a cluster
/// more.
class ClusterCounts {
 public:
  static constexpr unsigned kChunkBits = 13;
  static constexpr uint64_t kChunkClusters = uint64_t{1} << kChunkBits;

  /// Layout of a narrow counter. A count of kNarrowMax stands for "look into the wide ones".
  static constexpr uint16_t kCountMask = 0x3fff, kNarrowMax = kCountMask;
  static constexpr uint16_t kSeenCopied = 0x4000;    ///< an active entry points here and has COPIED set
  static constexpr uint16_t kSeenUncopied = 0x8000;  ///< an active entry points here and has COPIED clear

  /// For clusters below `limit`, counting up to `max` (the image's largest refcount). `limit` has been bounded by the
  /// caller; the table of pieces takes 16 bytes per 8192 clusters.
  ClusterCounts(uint64_t limit, uint64_t max);

  [[nodiscard]] uint64_t limit() const { return limit_; }
  [[nodiscard]] uint64_t max() const { return max_; }

  /// Adds `times` references and the marks; returns how many did not fit.
  uint64_t add(HostCluster cluster, uint64_t times, uint16_t marks) {
    assert(cluster.v < limit_);
    Chunk& chunk = chunks_[cluster.v >> kChunkBits];
    if (chunk.narrow && times == 1) [[likely]] {
      uint16_t& counter = chunk.narrow[cluster.v & (kChunkClusters - 1)];
      if ((counter & kCountMask) < quick_max_) [[likely]] {
        counter = static_cast<uint16_t>((counter + 1) | marks);
        return 0;
      }
    }
    return add_slowly(chunk, cluster, times, marks);
  }

  [[nodiscard]] uint64_t get(HostCluster cluster) const;
  /// Replaces the count; the marks stay. `value` may exceed max().
  void set(HostCluster cluster, uint64_t value);
  [[nodiscard]] uint16_t marks(HostCluster cluster) const;

  /// The narrow counters from `first` on, up to the end of their piece; null when all of the piece is zero.
  [[nodiscard]] const uint16_t* narrow(HostCluster first) const {
    const Chunk& chunk = chunks_[first.v >> kChunkBits];
    return chunk.narrow ? &chunk.narrow[first.v & (kChunkClusters - 1)] : nullptr;
  }
  /// Whether a cluster of [first, end) has a count.
  [[nodiscard]] bool any(HostCluster first, HostCluster end) const;
  /// Whether [first, end) touches no piece that has ever been counted in; any() without looking at counters.
  [[nodiscard]] bool untouched(HostCluster first, HostCluster end) const;
  /// The first cluster at or behind `from` without a count; limit() when there is none.
  [[nodiscard]] HostCluster find_free(HostCluster from) const;

 private:
  struct Chunk {
    std::unique_ptr<uint16_t[]> narrow;
    std::unique_ptr<uint64_t[]> wide;  ///< valid where the narrow count is kNarrowMax
  };
  uint64_t add_slowly(Chunk& chunk, HostCluster cluster, uint64_t times, uint16_t marks);
  static void store(Chunk& chunk, size_t index, uint64_t value);
  static uint64_t load(const Chunk& chunk, size_t index);

  uint64_t limit_, max_;
  uint16_t quick_max_;  ///< a narrow count below this may simply be incremented
  std::vector<Chunk> chunks_;
};

}  // namespace coimg::qcow2
