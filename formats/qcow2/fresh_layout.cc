#include "formats/qcow2/fresh_layout.h"

#include <algorithm>
#include <utility>

#include "block/util/math.h"

namespace coimg::qcow2 {

namespace {

constexpr uint64_t kRefcountTableCluster = 1, kFirstBlockCluster = 2, kFixedClusters = 3;

Error table_too_large() { return {EFBIG, "the refcount table would become too large"}; }

/// Repeats what QEMU's allocation does to an image of three clusters: everything takes the first run of free clusters
/// that is long enough. A refcount block that is missing takes the first free cluster behind the run that needs it, and
/// counts itself if it can; else the block that counts it has to be there first, and takes the cluster behind.
class LayoutPlanner {
 public:
  explicit LayoutPlanner(const Geometry& geometry) : geometry_(geometry) {
    layout_.refcount_table = offset_of(kRefcountTableCluster);
    layout_.refcount_table_clusters = 1;
    layout_.blocks.resize(entries_per_cluster());
    layout_.blocks[0] = offset_of(kFirstBlockCluster).v;
    used_.insert(HostCluster(0), ClusterCount(kFixedClusters));
    extend_to(offset_of(kFixedClusters));
  }

  Result<void> place_l1(uint64_t entries) {
    layout_.l1_entries = entries;
    if (entries == 0) return {};
    layout_.l1_table = offset_of(COIMG_TRY(take(geometry_.clusters_for(entries * sizeof(be64)))));
    extend_to(layout_.l1_table + entries * sizeof(be64));
    return {};
  }

  /// Room for the refcounts of all that there will be, in one piece behind what there is, and behind that the data.
  Result<HostOffset> place_refcounts_and_data(uint64_t data_clusters, uint64_t tables) {
    const uint64_t start = end_of_used();
    const RefcountMetadata all = refcount_metadata_for(geometry_, start + data_clusters + tables);
    COIMG_TRY(move_table(start, slot_of(start), all.blocks, all.table_clusters));
    const uint64_t first = end_of_used();
    use_whole(first, data_clusters);
    return offset_of(first);
  }

  Result<void> place_l2() {
    layout_.l2_tables.push_back(offset_of(COIMG_TRY(take(1))));
    extend_to(layout_.l2_tables.back() + geometry_.cluster_size());
    return {};
  }

  /// The data of the next L2 table. `bytes`: what the disk has of these clusters.
  Result<void> place_data(uint64_t clusters, uint64_t bytes) {
    map_data(offset_of(COIMG_TRY(take(clusters))));
    extend_to(layout_.data.back() + bytes);
    return {};
  }

  /// Gives the next L2 table's clusters their place.
  void map_data(HostOffset at) { layout_.data.push_back(at); }

  FreshLayout finish() && {
    std::erase_if(layout_.abandoned, [this](const FreshLayout::AbandonedCluster& old) {
      return used_.first_overlap(geometry_.host_cluster(old.offset), ClusterCount(1)).has_value();
    });
    layout_.used = used_.runs();
    return std::move(layout_);
  }

 private:
  [[nodiscard]] HostOffset offset_of(uint64_t cluster) const { return geometry_.host_offset(HostCluster(cluster)); }
  [[nodiscard]] uint64_t slot_of(uint64_t cluster) const { return cluster / geometry_.refcounts_per_block(); }
  [[nodiscard]] uint64_t entries_per_cluster() const { return geometry_.cluster_size() / sizeof(be64); }
  [[nodiscard]] bool has_block(uint64_t slot) const {
    return slot < layout_.blocks.size() && layout_.blocks[slot] != 0;
  }
  void extend_to(HostOffset end) { layout_.file_bytes = std::max(layout_.file_bytes, end.v); }

  [[nodiscard]] uint64_t end_of_used() const { return used_.runs().back().end.v; }
  void use(uint64_t first, uint64_t clusters) { used_.insert(HostCluster(first), ClusterCount(clusters)); }
  /// For metadata, which are written whole.
  void use_whole(uint64_t first, uint64_t clusters) {
    use(first, clusters);
    extend_to(offset_of(first + clusters));
  }

  uint64_t find_free(uint64_t clusters) {
    const uint64_t first = used_.first_gap(HostCluster(next_free_), ClusterCount(clusters)).v;
    next_free_ = first + clusters;
    return first;
  }

  /// The search starts anew after each block that had to be made, as the block may lie where the run was to be.
  Result<uint64_t> take(uint64_t clusters) {
    for (;;) {
      const uint64_t first = find_free(clusters);
      uint64_t slot = slot_of(first);
      const uint64_t last_slot = slot_of(first + clusters - 1);
      while (slot <= last_slot && has_block(slot)) ++slot;
      if (slot > last_slot) {
        use(first, clusters);
        return first;
      }
      COIMG_TRY(make_block(slot));
      next_free_ = std::min(next_free_, first);
    }
  }

  // Recurses for the block that counts a new block: that one counts itself, or is the last of a cluster run that ends
  // there, so this is not deep.
  Result<void> make_block(uint64_t slot) {
    const uint64_t block = find_free(1);
    if (slot_of(block) != slot && !has_block(slot_of(block))) COIMG_TRY(make_block(slot_of(block)));
    use_whole(block, 1);
    if (slot >= layout_.blocks.size()) COIMG_TRY(grow_table(std::max(slot, slot_of(block))));
    layout_.blocks[slot] = offset_of(block).v;
    return {};
  }

  /// Moves the table behind everything that blocks up to `last_slot` describe, together with the blocks that describe
  /// it there.
  Result<void> grow_table(uint64_t last_slot) {
    const uint64_t described = last_slot + 1;
    const GrownRefcountTable plan = COIMG_TRY(grow_refcount_table(geometry_, described));
    return move_table(plan.first.v, described, described + plan.blocks, plan.table_clusters);
  }

  /// Puts the blocks that are missing from `slot` on at `start`, and the table behind them.
  Result<void> move_table(uint64_t start, uint64_t slot, uint64_t blocks, uint64_t table_clusters) {
    if (table_clusters * geometry_.cluster_size() > kMaxRefcountTableBytes) return table_too_large();
    abandon_table();
    layout_.blocks.resize(table_clusters * entries_per_cluster());
    uint64_t cluster = start;
    for (; slot < blocks; ++slot) {
      if (has_block(slot)) continue;
      use_whole(cluster, 1);
      layout_.blocks[slot] = offset_of(cluster++).v;
    }
    layout_.refcount_table = offset_of(cluster);
    layout_.refcount_table_clusters = static_cast<uint32_t>(table_clusters);
    use_whole(cluster, table_clusters);
    return {};
  }

  void abandon_table() {
    const uint64_t first = geometry_.host_cluster(layout_.refcount_table).v;
    for (uint64_t i = 0; i < layout_.refcount_table_clusters; ++i) {
      const auto begin = layout_.blocks.begin() + static_cast<ptrdiff_t>(i * entries_per_cluster());
      const auto end = begin + static_cast<ptrdiff_t>(entries_per_cluster());
      layout_.abandoned.push_back({offset_of(first + i), {begin, end}});
    }
    used_.erase(HostCluster(first), ClusterCount(layout_.refcount_table_clusters));
    next_free_ = std::min(next_free_, first);
  }

  const Geometry geometry_;
  FreshLayout layout_;
  ClusterSet used_;
  uint64_t next_free_ = 0;  ///< where the search goes on
};

}  // namespace

Result<FreshLayout> plan_empty_disk(const Geometry& geometry, uint64_t size) {
  LayoutPlanner planner(geometry);
  COIMG_TRY(planner.place_l1(geometry.l1_needed(size)));
  return std::move(planner).finish();
}

Result<FreshLayout> plan_preallocated_disk(const Geometry& geometry, uint64_t size, Preallocation preallocation) {
  LayoutPlanner planner(geometry);
  const uint64_t tables = geometry.l1_needed(size);
  COIMG_TRY(planner.place_l1(tables));
  uint64_t left = geometry.external_data() ? 0 : geometry.clusters_for(size);
  const bool reserves = preallocation == Preallocation::kFalloc || preallocation == Preallocation::kFull;
  if (reserves && !geometry.external_data()) {
    const HostOffset data = COIMG_TRY(planner.place_refcounts_and_data(left, tables));
    for (uint64_t table = 0; table < tables; ++table) {
      COIMG_TRY(planner.place_l2());
      planner.map_data(data + (table * geometry.l2_entries() << geometry.cluster_bits()));
    }
    return std::move(planner).finish();
  }
  for (uint64_t table = 0; table < tables; ++table) {
    COIMG_TRY(planner.place_l2());
    const uint64_t clusters = std::min(left, geometry.l2_entries());
    if (clusters == 0) continue;
    left -= clusters;
    const uint64_t all_bytes = clusters << geometry.cluster_bits();
    // What lies behind the disk's end in the last cluster reads as zeros; subclusters that are not there do anyway.
    const uint64_t behind_end =
        left == 0 && geometry.extended_l2() ? align_up(size, geometry.cluster_size()) - size : 0;
    COIMG_TRY(planner.place_data(clusters, all_bytes - behind_end));
  }
  return std::move(planner).finish();
}

}  // namespace coimg::qcow2
