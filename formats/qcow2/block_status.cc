// Telling where guest data lies.
//
// Format: qcow2, sections "Mapping a read", "Standard L2 entry".
#include "block/driver.h"
#include "formats/qcow2/qcow2.h"

namespace coimg::qcow2 {

namespace {

/// Whether `next`, which lies right behind `extent`, has the same answer.
bool continues(const Extent& extent, const Extent& next) {
  if (extent.type != next.type) return false;
  return extent.host.v == 0 ? next.host.v == 0 : next.host == extent.host + extent.bytes;
}

}  // namespace

Result<BlockStatus> Qcow2::block_status(uint64_t offset, uint64_t bytes, bool want_zero) {
  COIMG_TRY(check_usable());
  Extent extent;
  {
    CoReadGuard guard(lock_);
    extent = COIMG_TRY(map_locked(GuestOffset(offset), bytes));
    while (extent.bytes < bytes) {
      const auto next = map_locked(GuestOffset(offset + extent.bytes), bytes - extent.bytes);
      if (!next.ok() || !continues(extent, *next)) break;  // an error is told when its own range is asked for
      extent.bytes += next->bytes;
    }
  }

  BlockStatus status{.bytes = extent.bytes};
  switch (extent.type) {
    case ClusterType::kUnallocated:
      if (extent.host.v != 0) {  // a place that nothing is stored in yet
        status.host_offset = extent.host.v;
        status.file = &file_;
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
      status.file = &file_;
      break;
    case ClusterType::kNormal:
      status.allocated = status.data = true;
      status.host_offset = extent.host.v;
      status.file = &file_;
      status.ask_file = want_zero;
      break;
  }
  return status;
}

}  // namespace coimg::qcow2
