// Repairer, rebuild: makes new refcount structures from what was counted, without trusting the old ones.
//
// The new blocks and the new table go to clusters that nothing refers to, not even the old structures, so until the
// header points to them the image is as it was. Then the old structures are free.
//
// Format: qcow2, sections "Refcounts", "Check and repair: Rebuild".
#include <fmt/format.h>

#include <algorithm>

#include "block/util/buffer.h"
#include "formats/qcow2/qcow2.h"
#include "formats/qcow2/repair.h"

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

Result<void> Repairer::rebuild() {
  report("Rebuilding refcount structure");
  HostCluster from(1);
  if (checker_->lost_references()) {
    // What is not counted may be in use: keep the old refcounts where they are higher, and stay behind all clusters.
    COIMG_TRY(checker_->raise_counts_to_stored());
    from = checker_->end_of_use();
  }
  const RefcountPlacement placement = COIMG_TRY(place_refcounts(checker_->counts(), image_.geometry_, from));
  changed_ = true;
  COIMG_TRY(write_new_refcounts(placement));
  return free_old_refcounts();
}

Result<void> Repairer::write_new_refcounts(const RefcountPlacement& placement) {
  const Geometry& geometry = image_.geometry_;
  const ClusterCounts& counts = checker_->counts();
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
    COIMG_TRY(
        image_.file_.co_pwrite(placement.table[index], block.span()).with_context("writing a new refcount block"));
  }

  std::vector<be64> table(placement.table_clusters * geometry.cluster_size() / 8, be64(0));
  std::ranges::copy(placement.table, table.begin());
  COIMG_TRY(image_.file_.co_pwrite(placement.table_offset.v, std::as_bytes(std::span(table)))
                .with_context("writing the new refcount table"));
  COIMG_TRY(image_.file_.co_flush().with_context("flushing the new refcounts"));
  return image_.store_refcount_table_location(placement.table_offset, static_cast<uint32_t>(placement.table_clusters));
}

/// Counts again, now with the new structures, and frees the old ones. What was wrong with refcounts is repaired then.
Result<void> Repairer::free_old_refcounts() {
  const CheckResult before = checker_->result();
  SilentReporter silent;
  auto fresh = std::make_unique<Checker>(image_, silent, false);
  COIMG_TRY(fresh->count_references());
  COIMG_TRY(fresh->compare());
  if (fresh->io_failed()) return Error(EIO, "could not read the image again after rebuilding its refcounts");
  if (fresh->needs_rebuild()) return Error(EIO, "the rebuilt refcounts do not describe the image");
  fresh->set_reporter(reporter_);
  COIMG_TRY(fresh->correct_refcounts(RepairMode::kAll));

  CheckResult& result = fresh->result();
  result.corruptions_fixed =
      before.corruptions_fixed + before.corruptions - std::min(before.corruptions, result.corruptions);
  result.leaks_fixed = before.leaks_fixed + before.leaks - std::min(before.leaks, result.leaks);
  checker_ = std::move(fresh);
  return {};
}

}  // namespace coimg::qcow2
