// The state of a machine, which lies behind the disk: from the first L2 table on that the disk has no use for.
//
// Its clusters are mapped like the disk's, so that a snapshot takes them along; the L1 table grows for them. What is
// not allocated is zeros, whatever the backing file has there.
//
// Format: qcow2, section "Machine state".
#include <algorithm>
#include <cerrno>

#include "block/util/buffer.h"
#include "block/util/math.h"
#include "formats/qcow2/qcow2.h"

namespace coimg::qcow2 {

/// Where [offset, offset + bytes) of the state is. EFBIG when no L1 table reaches so far; ENOTSUP with a data file,
/// which has the disk and nothing else.
Result<GuestOffset> Qcow2::locate_vm_state(uint64_t offset, uint64_t bytes) const {
  if (geometry_.external_data()) return Error::from_errno(ENOTSUP);
  const auto start = checked_add(geometry_.l1_needed(virtual_size_) * geometry_.l2_coverage(), offset);
  const auto end = start.has_value() ? checked_add(*start, bytes) : std::nullopt;
  if (!end.has_value() || *end > kMaxFileOffset || geometry_.l1_needed(*end) > kMaxL1Entries) {
    return Error::from_errno(EFBIG);
  }
  return GuestOffset(*start);
}

Result<void> Qcow2::read_vm_state(GuestOffset offset, const IoVector& iov) {
  for (uint64_t done = 0; done < iov.size();) {
    Extent extent;
    {
      CoReadGuard guard(lock_);
      extent = COIMG_TRY(map_locked(offset + done, iov.size() - done));
    }
    if (extent.type == ClusterType::kUnallocated) {
      iov.fill(done, extent.bytes, std::byte{0});
    } else {
      COIMG_TRY(read_extent(offset + done, extent, iov.slice(done, extent.bytes)));
    }
    done += extent.bytes;
  }
  return {};
}

Result<void> Qcow2::preadv_vm_state(uint64_t offset, const IoVector& iov) {
  COIMG_TRY(check_usable());
  const GuestOffset guest = COIMG_TRY(locate_vm_state(offset, iov.size()));
  const TrackedRequest request(in_flight_, guest.v, iov.size(), RangeMode::kShared);
  return read_vm_state(guest, iov);
}

/// Writes whole clusters: around the data, what the first and the last one held before.
Result<void> Qcow2::pwritev_vm_state(uint64_t offset, const IoVector& iov) {
  COIMG_TRY(check_usable());
  const GuestOffset guest = COIMG_TRY(locate_vm_state(offset, iov.size()));
  const GuestOffset data_end = guest + iov.size();
  const GuestOffset first(geometry_.cluster_down(guest.v));
  const GuestOffset end(geometry_.cluster_up(data_end.v));
  const TrackedRequest request(in_flight_, first.v, end - first, RangeMode::kExclusive);
  {
    CoWriteGuard guard(lock_);
    const uint64_t entries = geometry_.l1_needed(end.v);
    if (entries > l1_table_.size()) COIMG_TRY(grow_l1_table_locked(entries));
  }
  AlignedBuffer head(guest - first), tail(end - data_end);
  IoVector whole;
  whole.add(head.span());
  whole.add(iov, 0, iov.size());
  whole.add(tail.span());
  COIMG_TRY(read_vm_state(first, IoVector(head.span())));
  COIMG_TRY(read_vm_state(data_end, IoVector(tail.span())));
  return write_allocating(first, whole, nullptr);
}

}  // namespace coimg::qcow2
