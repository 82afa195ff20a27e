// Repairer, snapshot table: gives each entry the extra data that version 3 requires, and cuts what breaks a limit.
//
// The repaired table goes to new clusters; one write of the header switches to it.
//
// Format: qcow2, section "Internal snapshots: Table entry".
#include <fmt/format.h>

#include "formats/qcow2/qcow2.h"
#include "formats/qcow2/repair.h"

namespace coimg::qcow2 {
Result<void> Repairer::complete_snapshot_table() {
  image_.lock_.assert_wrlocked();
  CheckResult& result = checker_->result();
  const uint64_t defects = checker_->snapshot_defects();
  COIMG_TRY(forget_caches());

  Header& header = image_.header_;
  const Geometry& geometry = image_.geometry_;
  const SnapshotTable parsed = COIMG_TRY(load_snapshot_table(image_.file_, header, OversizedSnapshots::kDiscard));
  const std::vector<std::byte> table = COIMG_TRY(encode_snapshot_table(parsed.snapshots));

  changed_ = true;
  HostOffset offset;  // an empty table is nowhere: the first entry may be too long
  if (!table.empty()) {
    const ClusterCount clusters(geometry.clusters_for(table.size()));
    offset = geometry.host_offset(COIMG_TRY(image_.refcounts_->allocate(clusters)));
    COIMG_TRY(image_.file_.co_pwrite(offset.v, table).with_context("writing the repaired snapshot table"));
    COIMG_TRY(image_.flush_locked());
  }

  const HostCluster old_start = geometry.host_cluster(header.snapshots_offset);
  COIMG_TRY(image_.store_snapshot_location_locked(offset, static_cast<uint32_t>(parsed.snapshots.size())));
  const ClusterCount old_clusters(geometry.clusters_for(parsed.bytes));
  if (old_clusters.v != 0) image_.refcounts_->free_best_effort(old_start, old_clusters);
  COIMG_TRY(image_.flush_locked());
  image_.snapshots_ = COIMG_TRY(load_snapshot_table(image_.file_, header)).snapshots;
  result.corruptions -= defects;
  result.corruptions_fixed += defects;
  return {};
}

}  // namespace coimg::qcow2
