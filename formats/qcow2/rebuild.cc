// Repairer, rebuild: makes new refcount structures from what was counted, without trusting the old ones.
//
// The new blocks and the new table go to clusters that nothing refers to, not even the old structures, so until the
// header points to them the image is as it was. Then the old structures are free.
//
// Format: qcow2, sections "Refcounts", "Check and repair: Rebuild".
#include <algorithm>

#include "formats/qcow2/qcow2.h"
#include "formats/qcow2/repair.h"

namespace coimg::qcow2 {
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
  COIMG_TRY(write_refcounts(image_.file_, checker_->counts(), placement, image_.geometry_));
  return image_.store_refcount_table_location(placement.table_offset, static_cast<uint32_t>(placement.table_clusters));
}

/// Counts again, now with the new structures, and frees the old ones. What was wrong with refcounts is repaired then.
Result<void> Repairer::free_old_refcounts() {
  const CheckResult before = checker_->result();
  SilentReporter silent;
  auto fresh = std::make_unique<Checker>(image_, silent, /*repair_entries=*/true);
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
