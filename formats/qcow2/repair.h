// Repairer: runs a check and mends what it found, as far as the mode allows.
//
// repair.cc drives, and corrects COPIED flags and single entries; rebuild.cc makes new refcount structures;
// repair_snapshots.cc completes the snapshot table, repair_bitmaps.cc replaces what bitmaps have lost. Nothing is
// repaired when a table could not be read.
//
// Format: qcow2, sections "Check and repair: Repair modes", "Rebuild".
#pragma once

#include <memory>
#include <span>
#include <string_view>

#include "block/driver.h"
#include "block/util/result.h"
#include "formats/qcow2/check.h"
#include "formats/qcow2/cluster_counts.h"
#include "formats/qcow2/format.h"
#include "formats/qcow2/refcount_layout.h"

namespace coimg::qcow2 {

class Qcow2;

/// One check of one image, with repair. The caller holds Qcow2::lock_ exclusively, and has written back all caches;
/// afterwards the caches hold nothing.
class Repairer {
 public:
  /// The reporter of the options outlives the object.
  Repairer(Qcow2& image, const CheckOptions& options);

  /// The findings that are left and those that were repaired.
  ///
  /// Errors: as Checker's; EIO when `mode` does not allow the rebuild that is needed (nothing has been changed then);
  /// a write that failed. Crash: each step leaves an image that is no worse than before it; dirty and corrupt bit are
  /// cleared last.
  Result<CheckResult> run() coroutine_fn;

 private:
  struct EntryRun;

  // --- repair.cc
  void report(std::string_view line) { reporter_.finding(line); }
  Result<void> repair() coroutine_fn;
  Result<void> repair_refcounts() coroutine_fn;
  Result<void> repair_with_new_clusters() coroutine_fn;
  Result<void> mend_misplaced_zeroes() coroutine_fn;
  Result<void> drop_blocks_outside() coroutine_fn;
  Result<void> check_copied() coroutine_fn;
  Result<void> check_copied_l1(uint64_t first, uint64_t end, bool mend) coroutine_fn;
  Result<void> check_copied_l2(const L2Reference& table, std::span<std::byte> bytes, bool mend) coroutine_fn;
  bool note_wrong_copied(bool mend, std::string_view words);
  Result<void> clear_marks() coroutine_fn;
  Result<void> forget_caches() coroutine_fn;

  // --- rebuild.cc
  Result<void> rebuild() coroutine_fn;
  Result<void> write_new_refcounts(const RefcountPlacement& placement) coroutine_fn;
  Result<void> free_old_refcounts() coroutine_fn;

  // --- repair_snapshots.cc
  Result<void> complete_snapshot_table() coroutine_fn;

  // --- repair_bitmaps.cc
  Result<void> mend_bitmap_tables() coroutine_fn;
  Result<void> replace_lost_bitmap_tables() coroutine_fn;
  Result<bool> is_only_reference(HostOffset offset, uint64_t bytes) coroutine_fn;
  Result<HostOffset> write_full_bitmap_table(uint32_t entries) coroutine_fn;

  Qcow2& image_;
  CheckReporter& reporter_;
  const RepairMode mode_;
  std::unique_ptr<Checker> checker_;
  bool changed_ = false;  ///< the file was written to
};

}  // namespace coimg::qcow2
