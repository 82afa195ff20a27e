// The guard against writing guest data over metadata: a last line of defence on damaged images, whose refcounts or
// entries call a cluster free or data although a table lives there.
//
// The set of metadata clusters is made when it is first needed, from tables that are in memory anyway, and kept up when
// tables come and go.
//
// Format: qcow2, section "Check before every write to the qcow2 file".
#include <fmt/format.h>

#include <algorithm>
#include <cassert>

#include "block/util/math.h"
#include "formats/qcow2/qcow2.h"

namespace coimg::qcow2 {

namespace {

constexpr std::string_view kBitmapDirectory = "bitmap directory";

/// Of all snapshots together: the L1 tables of hundreds of snapshots of a disk of many TiB.
constexpr uint64_t kMaxInactiveL1Entries = uint64_t{1} << 26;

/// Structures that the header or a snapshot refers to.
struct FixedStructure {
  OverlapStructure kind;
  std::string_view name;
  HostOffset offset;
  uint64_t bytes = 0;
};

std::vector<FixedStructure> fixed_structures(const Header& header, const Geometry& geometry,
                                             const RefcountTable& refcounts, const std::vector<Snapshot>& snapshots) {
  std::vector<FixedStructure> structures{
      {kOverlapHeader, "qcow2_header", HostOffset(0), geometry.cluster_size()},
      {kOverlapActiveL1, "active L1 table", header.l1_table_offset, header.l1_size * uint64_t{8}},
      {kOverlapRefcountTable, "refcount table", refcounts.table_offset(),
       refcounts.table_clusters() * geometry.cluster_size()},
  };
  if (!snapshots.empty()) {
    structures.push_back(
        {kOverlapSnapshotTable, "snapshot table", header.snapshots_offset, stored_table_bytes(snapshots)});
  }
  for (const Snapshot& snapshot : snapshots) {
    structures.push_back(
        {kOverlapInactiveL1, "inactive L1 table", snapshot.l1_table_offset, snapshot.l1_size * uint64_t{8}});
  }
  if (header.bitmaps) {
    structures.push_back(
        {kOverlapBitmapDirectory, kBitmapDirectory, header.bitmaps->directory_offset, header.bitmaps->directory_bytes});
  }
  if (header.encryption) {
    structures.push_back(
        {kOverlapEncryption, "encryption header", header.encryption->offset, header.encryption->bytes});
  }
  return structures;
}

ClusterRun clusters_of(const Geometry& geometry, HostOffset offset, uint64_t bytes) {
  return {geometry.host_cluster(offset), HostCluster(div_ceil(offset.v + bytes, geometry.cluster_size()))};
}

}  // namespace

Result<void> Qcow2::check_overlap_locked(HostOffset offset, uint64_t bytes) {
  if ((options_.overlap_checks & kOverlapAll & ~uint32_t{kOverlapEncryption}) == 0) return {};
  if (!overlap_guard_built_) COIMG_TRY(build_overlap_guard_locked());
  ClusterRun run = clusters_of(geometry_, offset, bytes);
  while (const auto hit = metadata_clusters_.first_overlap(run.first, run.count())) [[unlikely]] {
    const std::string_view name = guarded_metadata_locked(hit->first);
    if (!name.empty()) {
      return corruption(fmt::format("Preventing invalid write on metadata (overlaps with {})", name), true);
    }
    run.first = hit->first + 1;
    if (run.first == run.end) break;
  }
  return {};
}

Result<void> Qcow2::check_bitmap_directory_locked() {
  assert(header_.bitmaps);
  const ClusterRun own = clusters_of(geometry_, header_.bitmaps->directory_offset, header_.bitmaps->directory_bytes);
  ClusterSet others;
  for (const FixedStructure& structure : fixed_structures(header_, geometry_, *refcounts_, snapshots_)) {
    const ClusterRun run = clusters_of(geometry_, structure.offset, structure.bytes);
    if (structure.name != kBitmapDirectory) others.insert(run.first, run.count());
  }
  for (const uint64_t entry : refcounts_->entries()) {
    const HostOffset block(entry & kRefcountTableOffsetMask);
    if (block.v != 0) others.insert(geometry_.host_cluster(block), ClusterCount(1));
  }
  for (const L1Entry entry : l1_table_) {
    if (entry.has_table()) others.insert(geometry_.host_cluster(entry.l2_table()), ClusterCount(1));
  }
  if (!others.first_overlap(own.first, own.count())) return {};
  return corruption("the bitmap directory overlaps with other metadata", true);
}

/// Errors: EIO, reported, when a table lies in the header or in a table that the header refers to: writing the one
/// would damage the other.
Result<void> Qcow2::build_overlap_guard_locked() {
  metadata_clusters_ = inactive_l2_;
  ClusterSet fixed;
  for (const FixedStructure& structure : fixed_structures(header_, geometry_, *refcounts_, snapshots_)) {
    const ClusterRun run = clusters_of(geometry_, structure.offset, structure.bytes);
    metadata_clusters_.insert(run.first, run.count());
    if (options_.overlap_checks & structure.kind) fixed.insert(run.first, run.count());
  }
  auto add_table = [&](HostOffset table) -> bool {
    const HostCluster cluster = geometry_.host_cluster(table);
    if (fixed.first_overlap(cluster, ClusterCount(1))) return false;
    metadata_clusters_.insert(cluster, ClusterCount(1));
    return true;
  };
  for (const uint64_t entry : refcounts_->entries()) {
    const HostOffset block(entry & kRefcountTableOffsetMask);
    if (block.v != 0 && !add_table(block)) {
      return corruption(fmt::format("refcount block at {:#x} overlaps with other metadata", block.v), true);
    }
  }
  for (const L1Entry entry : l1_table_) {
    if (entry.has_table() && !add_table(entry.l2_table())) {
      return corruption(fmt::format("L2 table at {:#x} overlaps with other metadata", entry.l2_table().v), true);
    }
  }
  overlap_guard_built_ = true;
  return {};
}

std::string_view Qcow2::guarded_metadata_locked(HostCluster cluster) const {
  bool left_alone = false;
  for (const FixedStructure& structure : fixed_structures(header_, geometry_, *refcounts_, snapshots_)) {
    const ClusterRun run = clusters_of(geometry_, structure.offset, structure.bytes);
    if (cluster < run.first || cluster >= run.end) continue;
    if (options_.overlap_checks & structure.kind) return structure.name;
    left_alone = true;
  }
  const auto is_block = [&](uint64_t entry) {
    return geometry_.host_cluster(HostOffset(entry & kRefcountTableOffsetMask)) == cluster;
  };
  if (std::ranges::any_of(refcounts_->entries(), is_block)) {
    return options_.overlap_checks & kOverlapRefcountBlock ? "refcount block" : "";
  }
  if (left_alone) return "";
  const auto is_active = [&](L1Entry entry) {
    return entry.has_table() && geometry_.host_cluster(entry.l2_table()) == cluster;
  };
  if (inactive_l2_.first_overlap(cluster, ClusterCount(1)) && std::ranges::none_of(l1_table_, is_active)) {
    return "inactive L2 table";
  }
  return options_.overlap_checks & kOverlapActiveL2 ? "active L2 table" : "";
}

Result<void> Qcow2::load_inactive_l2_locked() {
  if (!(options_.overlap_checks & kOverlapInactiveL2)) return {};
  inactive_l2_.clear();
  reset_overlap_guard();
  uint64_t entries = 0;
  for (const Snapshot& snapshot : snapshots_) {
    entries += snapshot.l1_size;
    if (entries > kMaxInactiveL1Entries) return Error(EFBIG, "too many snapshots for the overlap check of all tables");
    const auto table = load_snapshot_l1_locked(snapshot);
    if (!table.ok() && table.error().errnum() == EUCLEAN) continue;  // nothing follows it
    if (!table.ok()) return table.error();
    for (const L1Entry entry : *table) {
      if (entry.has_table()) inactive_l2_.insert(geometry_.host_cluster(entry.l2_table()), ClusterCount(1));
    }
  }
  return {};
}

void Qcow2::note_metadata(HostOffset offset, uint64_t bytes, bool in_use) {
  if (!overlap_guard_built_) return;
  const ClusterRun run = clusters_of(geometry_, offset, bytes);
  if (in_use) {
    metadata_clusters_.insert(run.first, run.count());
  } else {
    metadata_clusters_.erase(run.first, run.count());
  }
}

}  // namespace coimg::qcow2
