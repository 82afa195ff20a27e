#include "formats/qcow2/fresh_layout.h"

#include <algorithm>
#include <utility>

namespace coimg::qcow2 {

namespace {

constexpr uint64_t kRefcountTableCluster = 1, kFirstBlockCluster = 2, kL1Cluster = 3;

Error table_too_large() { return {EFBIG, "the refcount table would become too large"}; }

/// Repeats what allocating an L1 table does to an image of three clusters.
///
/// An image with small clusters and a large disk has an L1 table that one refcount block does not cover. Each further
/// block takes the first free cluster behind the table, and counts itself if it can; else the block that counts it has
/// to be there first, and takes the cluster behind.
class EmptyDiskPlanner {
 public:
  EmptyDiskPlanner(const Geometry& geometry, uint64_t l1_entries) : geometry_(geometry) {
    const uint64_t l1_clusters = geometry.clusters_for(l1_entries * sizeof(be64));
    layout_.l1_entries = l1_entries;
    if (l1_entries != 0) layout_.l1_table = offset_of(kL1Cluster);
    layout_.refcount_table = offset_of(kRefcountTableCluster);
    layout_.refcount_table_clusters = 1;
    layout_.blocks.resize(entries_per_cluster());
    layout_.blocks[0] = offset_of(kFirstBlockCluster).v;
    used_.assign(kL1Cluster + l1_clusters, true);
    layout_.file_bytes = offset_of(kL1Cluster).v + l1_entries * sizeof(be64);
  }

  Result<FreshLayout> plan() && {
    const uint64_t slots = div_ceil(used_.size(), geometry_.refcounts_per_block());
    for (uint64_t slot = 1; slot < slots; ++slot) COIMG_TRY(ensure_block(slot));
    collect_runs();
    return std::move(layout_);
  }

 private:
  [[nodiscard]] HostOffset offset_of(uint64_t cluster) const { return geometry_.host_offset(HostCluster(cluster)); }
  [[nodiscard]] uint64_t slot_of(uint64_t cluster) const { return cluster / geometry_.refcounts_per_block(); }
  [[nodiscard]] uint64_t entries_per_cluster() const { return geometry_.cluster_size() / sizeof(be64); }

  void use(uint64_t cluster) {
    if (cluster >= used_.size()) used_.resize(cluster + 1);
    used_[cluster] = true;
    layout_.file_bytes = std::max(layout_.file_bytes, offset_of(cluster + 1).v);
  }

  /// Clusters are never freed but for the first refcount table, which is too far in front to be found again.
  uint64_t take_free() {
    while (next_free_ < used_.size() && used_[next_free_]) ++next_free_;
    return next_free_++;
  }

  // Recurses for the block that counts a new block: that one counts itself, or is the last of a cluster run that ends
  // there, so this is not deep.
  Result<void> ensure_block(uint64_t slot) {
    if (slot < layout_.blocks.size() && layout_.blocks[slot] != 0) return {};
    const uint64_t block = take_free();
    if (slot_of(block) != slot) COIMG_TRY(ensure_block(slot_of(block)));
    use(block);
    if (slot >= layout_.blocks.size()) COIMG_TRY(grow_table(std::max(slot, slot_of(block))));
    layout_.blocks[slot] = offset_of(block).v;
    return {};
  }

  /// Moves the table behind everything that blocks up to `last_slot` describe, together with the blocks that describe
  /// it there, and makes it half as large again as it has to be.
  Result<void> grow_table(uint64_t last_slot) {
    const uint64_t described = last_slot + 1;
    const uint64_t start = described * geometry_.refcounts_per_block();
    const uint64_t blocks = refcount_metadata_for(geometry_, start).blocks;
    const uint64_t table_clusters = div_ceil(blocks + div_ceil(blocks, 2), entries_per_cluster());
    if (table_clusters * geometry_.cluster_size() > kMaxRefcountTableBytes) return table_too_large();

    layout_.abandoned_table = layout_.blocks;
    used_[kRefcountTableCluster] = false;
    layout_.blocks.resize(table_clusters * entries_per_cluster());
    uint64_t cluster = start;
    for (uint64_t slot = described; slot < blocks; ++slot, ++cluster) {
      use(cluster);
      layout_.blocks[slot] = offset_of(cluster).v;
    }
    layout_.refcount_table = offset_of(cluster);
    layout_.refcount_table_clusters = static_cast<uint32_t>(table_clusters);
    for (uint64_t i = 0; i < table_clusters; ++i) use(cluster + i);
    return {};
  }

  void collect_runs() {
    for (uint64_t cluster = 0; cluster < used_.size(); ++cluster) {
      if (!used_[cluster]) continue;
      if (cluster == 0 || !used_[cluster - 1]) layout_.used.push_back({HostCluster(cluster), HostCluster(cluster)});
      ++layout_.used.back().end;
    }
  }

  const Geometry geometry_;
  FreshLayout layout_;
  std::vector<bool> used_;  ///< of each host cluster; an L1 table and what counts it, so small
  uint64_t next_free_ = kL1Cluster;
};

}  // namespace

Result<FreshLayout> plan_empty_disk(const Geometry& geometry, uint64_t size) {
  return EmptyDiskPlanner(geometry, geometry.l1_needed(size)).plan();
}

Result<FreshLayout> plan_preallocated_disk(const Geometry& geometry, uint64_t size) {
  const uint64_t entries = geometry.l1_needed(size);
  const uint64_t l1_clusters = geometry.clusters_for(entries * sizeof(be64));
  const uint64_t data_clusters = geometry.external_data() ? 0 : geometry.clusters_for(size);
  const RefcountMetadata refcounts = refcount_metadata_for(geometry, 1 + l1_clusters + entries + data_clusters);
  if (refcounts.table_clusters * geometry.cluster_size() > kMaxRefcountTableBytes) return table_too_large();

  FreshLayout layout;
  HostCluster next(1);
  const auto place = [&](uint64_t clusters) {
    const HostOffset at = geometry.host_offset(next);
    next += clusters;
    return at;
  };
  layout.refcount_table = place(refcounts.table_clusters);
  layout.refcount_table_clusters = static_cast<uint32_t>(refcounts.table_clusters);
  for (uint64_t i = 0; i < refcounts.blocks; ++i) layout.blocks.push_back(place(1).v);
  layout.l1_entries = entries;
  layout.l1_table = place(l1_clusters);
  layout.l2_tables = place(entries);
  layout.data = geometry.external_data() ? HostOffset(0) : place(data_clusters);
  layout.used = {{HostCluster(0), next}};
  layout.file_bytes = geometry.host_offset(next).v;
  return layout;
}

}  // namespace coimg::qcow2
