// Reading guest data.
//
// A request is in flight, shared, for as long as its data moves. So whoever wants to move or free clusters of that
// range waits, and the mapping that was looked up under lock_ stays true after the lock is given back.
//
// Format: qcow2, sections "Mapping a read", "Backing files".
#include "formats/qcow2/read.h"

#include <algorithm>

#include "formats/qcow2/qcow2.h"

namespace coimg::qcow2 {

Result<void> Qcow2::preadv(uint64_t offset, const IoVector& iov) {
  COIMG_TRY(check_usable());
  const DamageScope damage(*this);
  const TrackedRequest request(in_flight_, offset, iov.size(), RangeMode::kShared);
  // The block layer may ask for a whole last sector.
  const uint64_t inside = offset < virtual_size_ ? std::min(iov.size(), virtual_size_ - offset) : 0;
  iov.fill(inside, iov.size() - inside, std::byte{0});

  for (uint64_t done = 0; done < inside;) {
    const GuestOffset position(offset + done);
    Extent extent;
    CompressedRun run;
    {
      CoReadGuard guard(lock_);
      extent = COIMG_TRY(map_locked(position, inside - done));
      if (extent.type == ClusterType::kCompressed && iov.pieces().size() == 1) {
        run = COIMG_TRY(find_compressed_run_locked(position, extent, inside - done));
      }
    }
    if (run.entries.size() > 1) {
      const IoVector part = iov.slice(done, run.entries.size() * geometry_.cluster_size());
      COIMG_TRY(read_compressed_run(position, run, part));
      done += part.size();
    } else {
      COIMG_TRY(read_extent(position, extent, iov.slice(done, extent.bytes)));
      done += extent.bytes;
    }
  }
  return {};
}

Result<void> Qcow2::read_extent(GuestOffset offset, const Extent& extent, const IoVector& iov) {
  switch (extent.type) {
    case ClusterType::kNormal:
      file_.debug_event(DebugEvent::kReadAio);
      return read_data(extent.host, iov);
    case ClusterType::kCompressed:
      return read_compressed(offset, extent.entry, iov);
    case ClusterType::kZeroPlain:
    case ClusterType::kZeroAllocated:
      iov.fill(0, iov.size(), std::byte{0});
      return {};
    case ClusterType::kUnallocated:
      return read_backing(offset, iov);
  }
  __builtin_unreachable();
}

/// Reads from the file that has the guest data. A file may end anywhere; what is missing is zeros.
Result<void> Qcow2::read_data(HostOffset offset, const IoVector& iov) {
  const uint64_t end = data_.length();
  const uint64_t stored = offset.v < end ? std::min(iov.size(), end - offset.v) : 0;
  if (stored == iov.size()) [[likely]]
    return data_.co_preadv(offset.v, iov);
  iov.fill(stored, iov.size() - stored, std::byte{0});
  return stored ? data_.co_preadv(offset.v, iov.slice(0, stored)) : Result<void>();
}

/// Reads what this image does not have. Behind the end of a shorter backing file there are zeros.
Result<void> Qcow2::read_backing(GuestOffset offset, const IoVector& iov) {
  BlockNode* const below = backing();
  const uint64_t end = below ? below->length() : 0;
  const uint64_t stored = offset.v < end ? std::min(iov.size(), end - offset.v) : 0;
  iov.fill(stored, iov.size() - stored, std::byte{0});
  if (stored == 0) return {};
  file_.debug_event(DebugEvent::kReadBackingAio);
  return stored == iov.size() ? below->co_preadv(offset.v, iov) : below->co_preadv(offset.v, iov.slice(0, stored));
}

}  // namespace coimg::qcow2
