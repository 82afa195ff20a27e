#include "formats/qcow2/file_growth.h"

#include <algorithm>

namespace coimg::qcow2 {

FileGrowth::FileGrowth(const Geometry& geometry, const FreshLayout& layout)
    : geometry_(geometry), blocks_(layout.blocks.size()), file_bytes_(layout.file_bytes) {
  for (const ClusterRun& run : layout.used) used_.insert(run.first, run.count());
  for (size_t slot = 0; slot < layout.blocks.size(); ++slot) blocks_[slot] = layout.blocks[slot] != 0;
  table_.first = geometry.host_cluster(layout.refcount_table);
  table_.end = table_.first + layout.refcount_table_clusters;
  table_entries_ = (table_.count().v << geometry.cluster_bits()) / sizeof(be64);
}

Result<HostCluster> FileGrowth::allocate(ClusterCount count) {
  HostCluster start;
  do {  // a new refcount block may have been put where the run was meant to be
    start = find_free_run(count);
    if ((start.v + count.v) > kMaxHostOffset >> geometry_.cluster_bits()) {
      return Error(EFBIG, "The image size is too large (try using a larger cluster size)");
    }
  } while (COIMG_TRY(ensure_blocks(start, count)));
  used_.insert(start, count);
  free_hints_[free_hint_for(count)] = start + count.v;
  return start;
}

Result<ClusterCount> FileGrowth::allocate_at(HostCluster at, ClusterCount count) {
  do {
    if (const auto taken = used_.first_overlap(at, count)) count = ClusterCount(taken->first - at);
    if (count.v == 0) return count;
  } while (COIMG_TRY(ensure_blocks(at, count)));
  used_.insert(at, count);
  return count;
}

HostCluster FileGrowth::find_free_run(ClusterCount count) const {
  return used_.first_gap(free_hints_[free_hint_for(count)], count);
}

/// True when a block had to be made: it may lie inside the run, and there may be more to make.
Result<bool> FileGrowth::ensure_blocks(HostCluster first, ClusterCount count) {
  const uint64_t last_slot = slot_of(first + (count.v - 1));
  for (uint64_t slot = slot_of(first); slot <= last_slot; ++slot) {
    if (has_block(slot)) continue;
    COIMG_TRY(add_block(slot));
    return true;
  }
  return false;
}

Result<void> FileGrowth::add_block(uint64_t slot) {
  const HostCluster cluster = find_free_run(ClusterCount(1));
  if (slot_of(cluster) != slot && !has_block(slot_of(cluster))) return add_block(slot_of(cluster));
  use_whole(cluster, ClusterCount(1));
  if (slot >= table_entries_) return grow_table(slot);
  if (slot >= blocks_.size()) blocks_.resize(slot + 1);
  blocks_[slot] = true;
  return {};
}

Result<void> FileGrowth::grow_table(uint64_t slot) {
  const GrownRefcountTable plan = COIMG_TRY(grow_refcount_table(geometry_, slot + 1));
  use_whole(plan.first, ClusterCount(plan.blocks + plan.table_clusters));
  blocks_.resize(slot + 1 + plan.blocks);
  std::fill(blocks_.begin() + static_cast<ptrdiff_t>(slot), blocks_.end(), true);
  used_.erase(table_.first, table_.count());
  for (HostCluster& hint : free_hints_) hint = std::min(hint, table_.first);
  table_.first = plan.first + plan.blocks;
  table_.end = table_.first + plan.table_clusters;
  table_entries_ = (plan.table_clusters << geometry_.cluster_bits()) / sizeof(be64);
  return {};
}

/// For metadata, which are stored whole.
void FileGrowth::use_whole(HostCluster first, ClusterCount count) {
  used_.insert(first, count);
  extend_to(geometry_.host_offset(first + count.v));
}

}  // namespace coimg::qcow2
