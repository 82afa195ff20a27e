// External data files: what has to happen in them when only metadata would change otherwise.
//
// A raw data file shows the guest's view to programs that know nothing of the image. So where entries come to say that
// a range reads as zeros, zeros are stored first.
//
// Format: qcow2, sections "External data file", "data_file_raw".
#include <algorithm>

#include "formats/qcow2/qcow2.h"

namespace coimg::qcow2 {

/// Crash: zeros or the old data, as long as the entries have not changed.
Result<void> Qcow2::zero_raw_data_file(GuestOffset offset, uint64_t bytes, bool may_unmap) {
  if (!raw_data_file_ || offset.v >= virtual_size_) return {};
  return data_.co_pwrite_zeroes(offset.v, std::min(bytes, virtual_size_ - offset.v), {.may_unmap = may_unmap});
}

/// Gives space back that no entry shows any more.
Result<void> Qcow2::discard_data_file(GuestOffset offset, uint64_t bytes) {
  if (!geometry_.external_data() || raw_data_file_ || !passes_discards()) return {};
  return data_.co_pdiscard(offset.v, bytes);
}

/// What lies behind the end of the disk, if the file is longer, goes first: it must not show.
Result<void> Qcow2::grow_data_file(uint64_t new_length, Preallocation preallocation) {
  if (!geometry_.external_data()) return {};
  if (data_.exact_length() > virtual_size_) COIMG_TRY(data_.co_truncate(virtual_size_));
  const bool reserve = preallocation == Preallocation::kFalloc || preallocation == Preallocation::kFull;
  return data_.co_truncate(new_length, reserve ? preallocation : Preallocation::kOff)
      .with_context("resizing the data file");
}

}  // namespace coimg::qcow2
