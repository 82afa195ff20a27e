#include "formats/qcow2/cluster_counts.h"

#include <algorithm>
#include <span>

#include "block/util/math.h"

namespace coimg::qcow2 {

namespace {

/// Loops over blocks of this size have no branches inside, so that they become vector code.
constexpr size_t kBlock = 32;

uint8_t largest_count(std::span<const uint8_t> counters) {
  std::array<uint8_t, kBlock> largest{};
  for (; counters.size() >= kBlock; counters = counters.subspan(kBlock)) {
    for (size_t i = 0; i < kBlock; ++i) {
      largest[i] = std::max<uint8_t>(largest[i], counters[i] & ClusterCounts::kCountMask);
    }
  }
  for (const uint8_t counter : counters)
    largest[0] = std::max<uint8_t>(largest[0], counter & ClusterCounts::kCountMask);
  return *std::ranges::max_element(largest);
}

void mark_and_increment(std::span<uint8_t> counters, uint8_t marks) {
  for (; counters.size() >= kBlock; counters = counters.subspan(kBlock)) {
    for (size_t i = 0; i < kBlock; ++i) counters[i] = static_cast<uint8_t>((counters[i] + 1) | marks);
  }
  for (uint8_t& counter : counters) counter = static_cast<uint8_t>((counter + 1) | marks);
}

}  // namespace

ClusterCounts::ClusterCounts(uint64_t limit, uint64_t max)
    : limit_(limit),
      max_(max),
      quick_max_(static_cast<uint8_t>(std::min<uint64_t>(max, kNarrowMax - 1))),
      chunks_(div_ceil(limit, kChunkClusters)) {}

ClusterCounts::Chunk& ClusterCounts::chunk_of(HostCluster cluster) {
  assert(cluster.v < limit_);
  std::unique_ptr<Chunk>& chunk = chunks_[cluster.v >> kChunkBits];
  if (!chunk) chunk = std::make_unique<Chunk>();
  return *chunk;
}

uint64_t ClusterCounts::load(const Chunk& chunk, size_t index) {
  const uint8_t count = chunk.narrow[index] & kCountMask;
  if (count != kNarrowMax) return count;
  const uint16_t wide = chunk.wide->counts[index];
  return wide == kWideMax ? chunk.wide->huge[index] : wide;
}

void ClusterCounts::store(Chunk& chunk, size_t index, uint64_t value) {
  uint8_t& counter = chunk.narrow[index];
  counter = static_cast<uint8_t>((counter & ~kCountMask) | std::min<uint64_t>(value, kNarrowMax));
  if (value < kNarrowMax) return;
  if (!chunk.wide) chunk.wide = std::make_unique<Wide>();
  chunk.wide->counts[index] = static_cast<uint16_t>(std::min<uint64_t>(value, kWideMax));
  if (value < kWideMax) return;
  if (!chunk.wide->huge) chunk.wide->huge = std::make_unique<uint64_t[]>(kChunkClusters);
  chunk.wide->huge[index] = value;
}

uint64_t ClusterCounts::add_slowly(HostCluster cluster, uint64_t times, uint8_t marks) {
  Chunk& chunk = chunk_of(cluster);
  const size_t index = cluster.v & (kChunkClusters - 1);
  const uint64_t count = load(chunk, index);
  const uint64_t fitting = std::min(times, max_ - std::min(count, max_));
  store(chunk, index, count + fitting);
  chunk.narrow[index] |= marks;
  return times - fitting;
}

uint64_t ClusterCounts::add_row(HostCluster first, uint64_t count, uint8_t marks) {
  assert(first.v <= limit_ && count <= limit_ - first.v);
  for (uint64_t done = 0; done < count;) {
    const HostCluster cluster = first + done;
    const uint64_t piece_end = align_down(cluster.v, kChunkClusters) + kChunkClusters;
    const uint64_t run = std::min(count - done, piece_end - cluster.v);
    uint8_t* const counters = &chunk_of(cluster).narrow[cluster.v & (kChunkClusters - 1)];
    if (largest_count({counters, run}) >= quick_max_) return done;
    mark_and_increment({counters, run}, marks);
    done += run;
  }
  return count;
}

uint64_t ClusterCounts::get(HostCluster cluster) const {
  assert(cluster.v < limit_);
  const Chunk* const chunk = chunks_[cluster.v >> kChunkBits].get();
  return chunk ? load(*chunk, cluster.v & (kChunkClusters - 1)) : 0;
}

void ClusterCounts::set(HostCluster cluster, uint64_t value) {
  assert(cluster.v < limit_);
  if (value == 0 && !narrow(cluster)) return;
  store(chunk_of(cluster), cluster.v & (kChunkClusters - 1), value);
}

uint8_t ClusterCounts::marks(HostCluster cluster) const {
  assert(cluster.v < limit_);
  const uint8_t* counter = narrow(cluster);
  return counter ? static_cast<uint8_t>(*counter & ~kCountMask) : 0;
}

bool ClusterCounts::any(HostCluster first, HostCluster end) const {
  end.v = std::min(end.v, limit_);
  while (first < end) {
    const uint64_t run = std::min(end.v, align_down(first.v, kChunkClusters) + kChunkClusters) - first.v;
    if (const uint8_t* counters = narrow(first)) {
      if (std::any_of(counters, counters + run, [](uint8_t counter) { return (counter & kCountMask) != 0; })) {
        return true;
      }
    }
    first += run;
  }
  return false;
}

bool ClusterCounts::untouched(HostCluster first, HostCluster end) const {
  end.v = std::min(end.v, limit_);
  for (uint64_t cluster = first.v; cluster < end.v; cluster = align_down(cluster, kChunkClusters) + kChunkClusters) {
    if (chunks_[cluster >> kChunkBits]) return false;
  }
  return true;
}

HostCluster ClusterCounts::find_free(HostCluster from) const {
  while (from.v < limit_ && get(from) != 0) ++from;
  return HostCluster(std::min(from.v, limit_));
}

}  // namespace coimg::qcow2
