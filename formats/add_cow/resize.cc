// Growing and shrinking.
//
// The size of the disk is that of the image file, so it changes in the moment in which that does. What lies behind the
// end has to be in order before the disk grows over it, and is put in order after it has shrunk.
//
// Format: add-cow, section "Size".
#include <algorithm>

#include "block/util/buffer.h"
#include "block/util/math.h"
#include "block/util/scope.h"
#include "formats/add_cow/add_cow.h"

namespace coimg::add_cow {

Result<void> AddCow::truncate(uint64_t new_length, Preallocation preallocation) {
  if (!is_aligned(new_length, kSectorSize)) return Error(EINVAL, "The new size must be a multiple of 512");
  const TrackedRequest everything(in_flight_, 0, kMaxFileOffset, RangeMode::kExclusive);
  if (new_length > virtual_size_) return grow(new_length, preallocation);
  return new_length < virtual_size_ ? shrink(new_length) : Result<void>();
}

/// Crash: the old size, and at most bits behind its end, which nobody looks at and the next try clears.
Result<void> AddCow::grow(uint64_t new_length, Preallocation preallocation) {
  const uint64_t old_clusters = clusters();
  auto undo = on_scope_exit([&] { bitmap_->set_clusters(old_clusters); });
  if (!all_allocated_) {  // bits may be left of a longer disk
    COIMG_TRY(bitmap_->clear_from(GuestCluster(old_clusters), file_.exact_length() - geometry_.header_bytes()));
  }
  if (file_.exact_length() < geometry_.file_bytes(new_length)) {
    COIMG_TRY(file_.co_truncate(geometry_.file_bytes(new_length)).with_context("extending the COW bitmap"));
  }
  if (!all_allocated_) {
    bitmap_->set_clusters(geometry_.clusters(new_length));
    COIMG_TRY(hide_backing_behind_end(new_length));
    COIMG_TRY(bitmap_->store());
  }
  COIMG_TRY(file_.co_flush());

  // A part of a sector behind the end is not the disk's, and what it holds must not show.
  if (image_->exact_length() > virtual_size_) COIMG_TRY(image_->co_truncate(virtual_size_));
  COIMG_TRY(image_->co_truncate(new_length, preallocation).with_context("resizing the image file"));
  COIMG_TRY(image_->co_flush());
  undo.dismiss();
  virtual_size_ = new_length;
  return {};
}

/// What a longer backing file has behind the end of the disk must not come to light there.
Result<void> AddCow::hide_backing_behind_end(uint64_t new_length) {
  const uint64_t below_end = backing() ? std::min(backing()->length(), new_length) : 0;
  if (below_end <= virtual_size_) return {};
  COIMG_TRY(allocate_last_cluster());
  return bitmap_->set(GuestCluster(clusters()), geometry_.clusters(below_end) - clusters());
}

/// The partial cluster at the end of the disk, if it has one.
Result<void> AddCow::allocate_last_cluster() {
  const uint64_t start = geometry_.cluster_down(virtual_size_);
  if (start == virtual_size_) return {};
  const Extent extent = COIMG_TRY(map(start, virtual_size_ - start));
  if (extent.in_image) return {};
  AlignedBuffer content(virtual_size_ - start);
  const IoVector iov(content.span());
  COIMG_TRY(read_backing(start, iov));
  return copy_on_write(start, iov);
}

/// Crash: the new size, perhaps with bits behind its end.
Result<void> AddCow::shrink(uint64_t new_length) {
  COIMG_TRY(image_->co_truncate(new_length).with_context("resizing the image file"));
  virtual_size_ = new_length;
  first_gap_ = std::min(first_gap_, clusters());
  has_allocated_ = true;  // those without a bit may all be gone
  COIMG_TRY(image_->co_flush());
  if (!all_allocated_) {
    COIMG_TRY(bitmap_->clear_from(GuestCluster(clusters()), file_.exact_length() - geometry_.header_bytes()));
    COIMG_TRY(bitmap_->store());
  }
  bitmap_->set_clusters(clusters());
  COIMG_TRY(file_.co_truncate(geometry_.file_bytes(new_length)).with_context("shortening the COW bitmap"));
  return file_.co_flush();
}

}  // namespace coimg::add_cow
