// Writing, zeroing, discarding.
//
// What goes to clusters that are allocated is the image file's matter. Any other request takes its clusters exclusively
// and looks again, since somebody else may have allocated them meanwhile; then it writes whole clusters, around the
// guest's data what the backing file has there, and sets their bits. A failure before that leaves the bits as they
// were, and what the image file has under them means nothing.
//
// Format: add-cow, section "Writing".
#include <algorithm>

#include "block/util/buffer.h"
#include "block/util/math.h"
#include "formats/add_cow/add_cow.h"

namespace coimg::add_cow {

namespace {

/// From this size on, zeros around the data are made a hole rather than written: below, one request more costs more.
constexpr uint64_t kMinHoleBytes = 16 * kKiB;

}  // namespace

uint64_t AddCow::cluster_end(uint64_t offset) const { return std::min(geometry_.cluster_up(offset), virtual_size_); }

bool AddCow::is_whole_clusters(uint64_t offset, uint64_t bytes) const {
  return geometry_.cluster_down(offset) == offset && cluster_end(offset + bytes) == offset + bytes;
}

Result<void> AddCow::note_allocated(uint64_t offset, uint64_t bytes) {
  const GuestCluster first = geometry_.cluster_of(offset);
  has_allocated_ = true;
  return bitmap_->set(first, geometry_.clusters(offset + bytes) - first.v);
}

Result<void> AddCow::pwritev(uint64_t offset, const IoVector& iov, const WriteOptions&) {
  const Extent extent = COIMG_TRY(map(offset, iov.size()));
  if (extent.in_image && extent.bytes == iov.size()) return image_->co_pwritev(offset, iov);
  return write_allocating(offset, iov);
}

Result<void> AddCow::write_allocating(uint64_t offset, const IoVector& iov) {
  const uint64_t start = geometry_.cluster_down(offset);
  const TrackedRequest request(in_flight_, start, geometry_.cluster_up(offset + iov.size()) - start,
                               RangeMode::kExclusive);
  for (uint64_t done = 0; done < iov.size();) {
    const Extent extent = COIMG_TRY(map(offset + done, iov.size() - done));
    const IoVector part = iov.slice(done, extent.bytes);
    COIMG_TRY(extent.in_image ? image_->co_pwritev(offset + done, part) : copy_on_write(offset + done, part));
    done += extent.bytes;
  }
  return {};
}

/// Writes clusters that are not allocated. Locks: the caller has them in flight exclusively.
Result<void> AddCow::copy_on_write(uint64_t offset, const IoVector& iov) {
  const uint64_t end = offset + iov.size();
  const uint64_t start = geometry_.cluster_down(offset);
  const uint64_t whole_end = cluster_end(end);
  AlignedBuffer kept((offset - start) + (whole_end - end));
  const auto head = kept.span().first(offset - start);
  const auto tail = kept.span().subspan(head.size());

  IoVector stored;
  COIMG_TRY(add_kept_part(start, head, stored));
  const uint64_t stored_from = offset - stored.size();
  stored.add(iov, 0, iov.size());
  COIMG_TRY(add_kept_part(end, tail, stored));
  COIMG_TRY(image_->co_pwritev(stored_from, stored));
  return note_allocated(start, whole_end - start);
}

/// Takes what the guest sees at `offset` into the image file: adds it to what is going to be written, or, where it is
/// zeros, makes a hole at once.
Result<void> AddCow::add_kept_part(uint64_t offset, std::span<std::byte> memory, IoVector& iov) {
  if (memory.empty()) return {};
  const BackingExtent below = COIMG_TRY(map_backing(offset, memory.size()));
  if (below.zero && below.bytes == memory.size() && memory.size() >= kMinHoleBytes) {
    return image_->co_pwrite_zeroes(offset, memory.size(), {.may_unmap = true});
  }
  COIMG_TRY(read_backing(offset, IoVector(memory)).with_context("copying from the backing file"));
  iov.add(memory);
  return {};
}

// --- zeroes and discards -------------------------------------------------------------------------------------------

Result<void> AddCow::pwrite_zeroes(uint64_t offset, uint64_t bytes, const ZeroOptions& options) {
  const ZeroOptions in_image{.may_unmap = options.may_unmap, .no_fallback = options.no_fallback};
  if (all_allocated_) return image_->co_pwrite_zeroes(offset, bytes, in_image);
  const uint64_t end = std::min(offset + bytes, virtual_size_);
  const uint64_t start = geometry_.cluster_down(offset);
  // Shared among each other: who zeroes the same clusters does the same to them.
  const TrackedRequest request(in_flight_, start, geometry_.cluster_up(end) - start, RangeMode::kShared);
  while (offset < end) {
    const Extent extent = COIMG_TRY(map(offset, end - offset));
    COIMG_TRY(extent.in_image ? image_->co_pwrite_zeroes(offset, extent.bytes, in_image)
                              : zero_unallocated(offset, extent.bytes, in_image));
    offset += extent.bytes;
  }
  return {};
}

/// Zeroes clusters that are not allocated. Where the guest sees zeros already, they stay so. Locks: the caller has them
/// in flight, beside no writes. Errors: ENOTSUP for parts of a cluster, which have to be written.
Result<void> AddCow::zero_unallocated(uint64_t offset, uint64_t bytes, const ZeroOptions& options) {
  const uint64_t end = offset + bytes;
  while (offset < end) {
    const BackingExtent below = COIMG_TRY(map_backing(offset, end - offset));
    const uint64_t known_end = offset + below.bytes;
    const uint64_t zeros_end = known_end == end ? end : geometry_.cluster_down(known_end);
    if (below.zero && zeros_end > offset) {
      offset = zeros_end;
      continue;
    }
    const uint64_t part_end = std::min(cluster_end(known_end), end);
    if (!is_whole_clusters(offset, part_end - offset)) {
      return Error(ENOTSUP, "a part of a cluster is not zeroed efficiently");
    }
    COIMG_TRY(image_->co_pwrite_zeroes(offset, part_end - offset, options));
    COIMG_TRY(note_allocated(offset, part_end - offset));
    offset = part_end;
  }
  return {};
}

/// The bits stay set: else the backing file's old content would come back.
Result<void> AddCow::pdiscard(uint64_t offset, uint64_t bytes) {
  const uint64_t end = std::min(offset + bytes, virtual_size_);
  while (offset < end) {
    const Extent extent = COIMG_TRY(map(offset, end - offset));
    if (extent.in_image && image_->backing()) {  // which must not come to light
      COIMG_TRY(image_->co_pwrite_zeroes(offset, extent.bytes, {.may_unmap = true}));
    } else if (extent.in_image) {
      COIMG_TRY(image_->co_pdiscard(offset, extent.bytes));
    }
    offset += extent.bytes;
  }
  return {};
}

}  // namespace coimg::add_cow
