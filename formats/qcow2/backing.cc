// Another backing file under an image, and an image without content of its own.
//
// Format: qcow2, sections "Rewriting the header cluster", "Backing files", "Emptying an image".
#include <utility>

#include "formats/qcow2/qcow2.h"

namespace coimg::qcow2 {

/// Crash: the header names the old file or the new one. What hides the difference was flushed before.
Result<void> Qcow2::change_backing_file(const std::string& name, const std::string& format) {
  COIMG_TRY(check_usable());
  if (name.size() > kMaxBackingNameBytes || format.size() > kMaxBackingFormatBytes) return Error::from_errno(EINVAL);
  const TrackedRequest everything(in_flight_, 0, kMaxFileOffset, RangeMode::kExclusive);
  CoWriteGuard guard(lock_);
  COIMG_TRY(flush_locked());
  std::string old_name = std::exchange(header_.backing_file, name);
  std::string old_format = std::exchange(header_.backing_format, format);
  auto stored = rewrite_header_locked();
  if (!stored.ok()) {
    header_.backing_file = std::move(old_name);
    header_.backing_format = std::move(old_format);
  }
  return stored;
}

/// The L1 table is cleared on disk before anything that it referred to is freed.
///
/// Crash: each L1 entry is there or not; clusters leak.
Result<void> Qcow2::make_empty() {
  COIMG_TRY(check_usable());
  const TrackedRequest everything(in_flight_, 0, kMaxFileOffset, RangeMode::kExclusive);
  COIMG_TRY(bitmaps_.note_change(0, virtual_size_));
  COIMG_TRY(zero_raw_data_file(GuestOffset(0), virtual_size_, true));
  {
    CoWriteGuard guard(lock_);
    COIMG_TRY(drop_all_clusters_locked());
  }
  return discard_data_file(GuestOffset(0), virtual_size_);
}

Result<void> Qcow2::drop_all_clusters_locked() {
  COIMG_TRY(flush_locked());
  COIMG_TRY(drop_l2_tables_locked(0, l1_table_.size(), freed(options_.discard_snapshots)));
  COIMG_TRY(flush_locked());
  COIMG_TRY(refcounts_->drop_empty_blocks());
  COIMG_TRY(flush_locked());
  truncate_file_best_effort_locked();
  refcounts_->reclaim_freed();
  return {};
}

}  // namespace coimg::qcow2
