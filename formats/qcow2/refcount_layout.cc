// The new blocks and the new table go to clusters that nothing refers to, and describe themselves.
//
// Format: qcow2, section "Refcounts".
#include "formats/qcow2/refcount_layout.h"

#include <algorithm>
#include <optional>
#include <span>

#include "block/util/buffer.h"
#include "block/util/endian.h"

namespace coimg::qcow2 {
namespace {

/// Counts in the first run of `count` free clusters at or behind `from`; nothing when there is none below the limit.
std::optional<HostCluster> take_free_run(ClusterCounts& counts, HostCluster from, uint64_t count) {
  HostCluster start = counts.find_free(from);
  while (start.v + count <= counts.limit()) {
    uint64_t found = 1;
    while (found < count && counts.get(start + found) == 0) ++found;
    if (found == count) {
      for (uint64_t i = 0; i < count; ++i) counts.set(start + i, 1);
      return start;
    }
    start = counts.find_free(start + found);
  }
  return std::nullopt;
}

Error no_room() { return {EFBIG, "no room for new refcount structures"}; }

}  // namespace

Result<RefcountPlacement> place_refcounts(ClusterCounts& counts, const Geometry& geometry, HostCluster from) {
  const uint64_t per_block = geometry.refcounts_per_block();
  RefcountPlacement placement;
  std::vector<uint64_t>& table = placement.table;
  HostCluster table_start, free_hint = from;

  // Each block and the table take clusters, which may lie in a range that had no block yet: go on until none is added.
  for (bool grown = true; grown;) {
    grown = false;
    for (uint64_t index = 0; index * per_block < counts.limit(); ++index) {
      const HostCluster first(index * per_block);
      if ((index < table.size() && table[index] != 0) || !counts.any(first, first + per_block)) continue;
      if (index >= kMaxRefcountTableBytes / 8) return Error(EFBIG, "the refcount table would become too large");
      const std::optional<HostCluster> block = take_free_run(counts, free_hint, 1);
      if (!block) return no_room();
      free_hint = *block;
      if (index >= table.size()) table.resize(index + 1);
      table[index] = geometry.host_offset(*block).v;
      grown = true;
    }
    const uint64_t needed = geometry.clusters_for(table.size() * 8);
    if (needed <= placement.table_clusters) continue;
    for (uint64_t i = 0; i < placement.table_clusters; ++i) counts.set(table_start + i, 0);
    const std::optional<HostCluster> run = take_free_run(counts, from, needed);
    if (!run) return no_room();
    table_start = *run;
    placement.table_clusters = needed;
    grown = true;
  }
  placement.table_offset = geometry.host_offset(table_start);
  return placement;
}

Result<void> write_refcounts(BlockNode& file, const ClusterCounts& counts, const RefcountPlacement& placement,
                             const Geometry& geometry) {
  const uint64_t per_block = geometry.refcounts_per_block();
  AlignedBuffer block(geometry.cluster_size());
  for (size_t index = 0; index < placement.table.size(); ++index) {
    if (placement.table[index] == 0) continue;
    std::ranges::fill(block.span(), std::byte{0});
    const uint64_t first = index * per_block;
    const uint64_t end = std::min(first + per_block, counts.limit());
    for (uint64_t cluster = first; cluster < end; ++cluster) {
      write_refcount(block.data(), cluster - first, geometry.refcount_order(), counts.get(HostCluster(cluster)));
    }
    COIMG_TRY(file.co_pwrite(placement.table[index], block.span()).with_context("writing a new refcount block"));
  }

  std::vector<be64> table(placement.table_clusters * geometry.cluster_size() / 8, be64(0));
  std::ranges::copy(placement.table, table.begin());
  COIMG_TRY(file.co_pwrite(placement.table_offset.v, std::as_bytes(std::span(table)))
                .with_context("writing the new refcount table"));
  return file.co_flush().with_context("flushing the new refcounts");
}

}  // namespace coimg::qcow2
