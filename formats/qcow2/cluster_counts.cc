#include "formats/qcow2/cluster_counts.h"

#include <algorithm>

#include "block/util/math.h"

namespace coimg::qcow2 {

ClusterCounts::ClusterCounts(uint64_t limit, uint64_t max)
    : limit_(limit),
      max_(max),
      quick_max_(static_cast<uint16_t>(std::min<uint64_t>(max, kNarrowMax - 1))),
      chunks_(div_ceil(limit, kChunkClusters)) {}

uint64_t ClusterCounts::load(const Chunk& chunk, size_t index) {
  if (!chunk.narrow) return 0;
  const uint16_t count = chunk.narrow[index] & kCountMask;
  return count == kNarrowMax ? chunk.wide[index] : count;
}

void ClusterCounts::store(Chunk& chunk, size_t index, uint64_t value) {
  if (!chunk.narrow) chunk.narrow = std::make_unique<uint16_t[]>(kChunkClusters);
  uint16_t& counter = chunk.narrow[index];
  if (value >= kNarrowMax) {
    if (!chunk.wide) chunk.wide = std::make_unique<uint64_t[]>(kChunkClusters);
    chunk.wide[index] = value;
  }
  counter = static_cast<uint16_t>((counter & ~kCountMask) | std::min<uint64_t>(value, kNarrowMax));
}

uint64_t ClusterCounts::add_slowly(Chunk& chunk, HostCluster cluster, uint64_t times, uint16_t marks) {
  const size_t index = cluster.v & (kChunkClusters - 1);
  const uint64_t count = load(chunk, index);
  const uint64_t fitting = std::min(times, max_ - std::min(count, max_));
  store(chunk, index, count + fitting);
  chunk.narrow[index] |= marks;
  return times - fitting;
}

uint64_t ClusterCounts::get(HostCluster cluster) const {
  assert(cluster.v < limit_);
  return load(chunks_[cluster.v >> kChunkBits], cluster.v & (kChunkClusters - 1));
}

void ClusterCounts::set(HostCluster cluster, uint64_t value) {
  assert(cluster.v < limit_);
  Chunk& chunk = chunks_[cluster.v >> kChunkBits];
  if (value == 0 && !chunk.narrow) return;
  store(chunk, cluster.v & (kChunkClusters - 1), value);
}

uint16_t ClusterCounts::marks(HostCluster cluster) const {
  assert(cluster.v < limit_);
  const uint16_t* counter = narrow(cluster);
  return counter ? static_cast<uint16_t>(*counter & ~kCountMask) : 0;
}

bool ClusterCounts::any(HostCluster first, HostCluster end) const {
  end.v = std::min(end.v, limit_);
  while (first < end) {
    const uint64_t run = std::min(end.v, align_down(first.v, kChunkClusters) + kChunkClusters) - first.v;
    if (const uint16_t* counters = narrow(first)) {
      if (std::any_of(counters, counters + run, [](uint16_t counter) { return (counter & kCountMask) != 0; })) {
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
    if (chunks_[cluster >> kChunkBits].narrow) return false;
  }
  return true;
}

HostCluster ClusterCounts::find_free(HostCluster from) const {
  while (from.v < limit_ && get(from) != 0) ++from;
  return HostCluster(std::min(from.v, limit_));
}

}  // namespace coimg::qcow2
