// Telling where guest data lies.
//
// Format: qcow2, sections "Mapping a read", "Standard L2 entry".
#include <algorithm>

#include "block/driver.h"
#include "formats/qcow2/qcow2.h"

namespace coimg::qcow2 {

namespace {

/// Whether `next`, which lies right behind `extent`, has the same answer.
bool continues(const Extent& extent, const Extent& next) {
  if (extent.type != next.type) return false;
  if (extent.type == ClusterType::kNormal) return next.host == extent.host + extent.bytes;
  return extent.host.v == 0 ? next.host.v == 0 : next.host == extent.host + extent.bytes;
}

/// How many clusters have to be in use, for a file that takes up `stored` clusters, to expect holes among them: a bit
/// more than there are, as a hole or two are not worth asking the file system about each range. The same margin as in
/// qemu-img, so that both tell the same about an image.
uint64_t holes_expected_from(uint64_t stored) { return std::max(stored * 10 / 9, stored + 2); }

}  // namespace

Result<BlockStatus> Qcow2::block_status(uint64_t offset, uint64_t bytes, bool want_zero) {
  COIMG_TRY(check_usable());
  Extent extent;
  {
    CoReadGuard guard(lock_);
    extent = COIMG_TRY(map_locked(GuestOffset(offset), bytes));
    while (extent.bytes < bytes && !extent.complete) {
      const auto next = map_locked(GuestOffset(offset + extent.bytes), bytes - extent.bytes);
      if (!next.ok() || !continues(extent, *next)) break;  // an error is told when its own range is asked for
      extent.bytes += next->bytes;
      extent.complete = next->complete;
    }
  }

  BlockStatus status{.bytes = extent.bytes};
  switch (extent.type) {
    case ClusterType::kUnallocated:
      if (extent.host.v != 0) {  // a place that nothing is stored in yet
        status.host_offset = extent.host.v;
        status.file = &data_;
      }
      break;
    case ClusterType::kCompressed:
      status.allocated = status.data = status.compressed = true;
      break;
    case ClusterType::kZeroPlain:
      status.allocated = status.zero = true;
      break;
    case ClusterType::kZeroAllocated:
      status.allocated = status.zero = true;
      status.host_offset = extent.host.v;
      status.file = &data_;
      break;
    case ClusterType::kNormal:
      status.allocated = status.data = true;
      status.host_offset = extent.host.v;
      status.file = &data_;
      status.ask_file = want_zero && COIMG_TRY(file_has_holes());
      break;
  }
  return status;
}

/// Whether data clusters may be holes of the file, as they are when their metadata was preallocated.
Result<bool> Qcow2::file_has_holes() {
  if (!file_has_holes_) file_has_holes_ = COIMG_TRY(find_holes());
  return *file_has_holes_;
}

Result<bool> Qcow2::find_holes() {
  const auto allocated = file_.co_allocated_file_size();
  if (!allocated.ok() || !*allocated) return true;  // cannot be told without asking
  const uint64_t wanted = holes_expected_from(**allocated >> geometry_.cluster_bits());
  HostCluster end(geometry_.clusters_for(file_.exact_length()));
  const std::optional<uint64_t> damaged = refcounts_->first_unaligned_block(end);
  if (damaged) end = HostCluster(*damaged * geometry_.refcounts_per_block());
  if (wanted <= end.v) {  // else there are none even if each cluster is in use
    const Result<bool> used = refcounts_->has_used(wanted, end);
    if (used.ok() && *used) return true;
  }
  if (damaged) (void)corruption(refcounts_->unaligned_block_message(*damaged), false);
  return false;
}

}  // namespace coimg::qcow2
