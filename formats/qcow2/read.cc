// Reading guest data.
//
// A request is in flight, shared, for as long as its data moves. So whoever wants to move or free clusters of that
// range waits, and the mapping that was looked up under lock_ stays true after the lock is given back.
//
// Format: qcow2, sections "Mapping a read", "Compressed clusters", "Backing files".
#include "formats/qcow2/read.h"

#include <fmt/format.h>

#include <algorithm>
#include <cassert>
#include <utility>

#include "coroutine/worker_pool.h"
#include "formats/qcow2/compressed.h"
#include "formats/qcow2/qcow2.h"

namespace coimg::qcow2 {

namespace {

/// The request's memory when it is in one piece.
std::span<std::byte> single_piece(const IoVector& iov) {
  if (iov.pieces().size() != 1) return {};
  const iovec& piece = iov.pieces().front();
  return {static_cast<std::byte*>(piece.iov_base), piece.iov_len};
}

}  // namespace

// --- reading -------------------------------------------------------------------------------------------------------

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
    {
      CoReadGuard guard(lock_);
      extent = COIMG_TRY(map_locked(position, inside - done));
    }
    COIMG_TRY(read_extent(position, extent, iov.slice(done, extent.bytes)));
    done += extent.bytes;
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

/// Reads a part of one compressed cluster, or all of it. Decoding takes place on a worker thread, where it runs beside
/// that of other requests; a cluster in one piece is decoded to where it belongs.
Result<void> Qcow2::read_compressed(GuestOffset offset, L2Entry entry, const IoVector& iov) {
  const uint64_t in_cluster = geometry_.in_cluster(offset.v);
  // Held here, as another request may replace it while this one sleeps.
  if (const auto decoded = last_decoded_; decoded && decoded->raw_entry == entry.raw()) {
    iov.copy_from(0, decoded->bytes.span().subspan(in_cluster, iov.size()));
    return {};
  }

  const CompressedRange range = entry.compressed_range(geometry_);
  AlignedBuffer memory(geometry_.cluster_up(range.bytes));  // of few different sizes, which keeps the heap in one piece
  const std::span<std::byte> stream = memory.span().first(range.bytes);
  file_.debug_event(DebugEvent::kReadCompressed);
  COIMG_TRY(read_data(range.offset, IoVector(stream)).with_context("reading a compressed cluster"));

  const std::span<std::byte> target = single_piece(iov);
  const bool in_place = target.size() == geometry_.cluster_size();
  AlignedBuffer buffer(in_place ? 0 : geometry_.cluster_size());
  const std::span<std::byte> cluster = in_place ? target : buffer.span();
  if (in_place) iov.unmap_pages();
  const CompressionType type = compression_type_;
  COIMG_TRY(co_run_on_worker([&] { return decompress_cluster(type, stream, cluster); })
                .at(range.offset.v)
                .with_context(fmt::format("compressed cluster at guest offset {:#x}, host offset {:#x}",
                                          offset.v - in_cluster, range.offset.v)));
  if (in_place) return {};

  iov.copy_from(0, cluster.subspan(in_cluster, iov.size()));
  // Whoever reads a part of a cluster mostly comes back for the rest. Only where nothing changes: in a writable image
  // the same entry may come to stand for other bytes.
  if (!flags_.writable && iov.size() < geometry_.cluster_size()) {
    last_decoded_ = std::make_shared<const DecodedCluster>(entry.raw(), std::move(buffer));
  }
  return {};
}

}  // namespace coimg::qcow2
