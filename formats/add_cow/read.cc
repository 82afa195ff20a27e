// Reading, and telling where guest data lies.
//
// Reads wait for nobody. Who looked a bit up before it was set reads the old content, as if it had come earlier.
//
// Format: add-cow, section "Reading".
#include <algorithm>

#include "formats/add_cow/add_cow.h"

namespace coimg::add_cow {

Result<AddCow::Extent> AddCow::map(uint64_t offset, uint64_t bytes) {
  if (all_allocated_) return Extent{.in_image = true, .bytes = bytes};
  const GuestCluster first = geometry_.cluster_of(offset);
  const uint64_t clusters = geometry_.cluster_of(offset + bytes - 1) - first + 1;
  const auto run = COIMG_TRY(bitmap_->find_run(first, clusters));
  return Extent{.in_image = run.set, .bytes = std::min(bytes, geometry_.start_of(first + run.clusters) - offset)};
}

Result<void> AddCow::preadv(uint64_t offset, const IoVector& iov) {
  for (uint64_t done = 0; done < iov.size();) {
    const Extent extent = COIMG_TRY(map(offset + done, iov.size() - done));
    const bool all = extent.bytes == iov.size();
    const IoVector part = all ? IoVector() : iov.slice(done, extent.bytes);
    const IoVector& target = all ? iov : part;
    COIMG_TRY(extent.in_image ? image_->co_preadv(offset + done, target) : read_backing(offset + done, target));
    done += extent.bytes;
  }
  return {};
}

/// Behind the end of a shorter backing file there are zeros.
Result<void> AddCow::read_backing(uint64_t offset, const IoVector& iov) {
  BlockNode* const below = backing();
  const uint64_t end = below ? below->length() : 0;
  const uint64_t stored = offset < end ? std::min(iov.size(), end - offset) : 0;
  iov.fill(stored, iov.size() - stored, std::byte{0});
  if (stored == 0) return {};
  return stored == iov.size() ? below->co_preadv(offset, iov) : below->co_preadv(offset, iov.slice(0, stored));
}

Result<AddCow::BackingExtent> AddCow::map_backing(uint64_t offset, uint64_t bytes) {
  BlockNode* const below = backing();
  if (!below || offset >= below->length()) return BackingExtent{.zero = true, .bytes = bytes};
  const auto found = COIMG_TRY(below->co_chain_status(offset, std::min(bytes, below->length() - offset)));
  return BackingExtent{.zero = found.status.zero, .bytes = found.status.bytes};
}

/// Allocated clusters are what the image file says about them: its holes are holes.
Result<BlockStatus> AddCow::block_status(uint64_t offset, uint64_t bytes, bool want_zero) {
  Extent extent = COIMG_TRY(map(offset, bytes));
  if (!extent.in_image) return BlockStatus{.bytes = extent.bytes};
  BlockStatus status = COIMG_TRY(image_->co_chain_status(offset, extent.bytes, nullptr, want_zero)).status;
  status.allocated = true;
  status.ask_file = false;  // has been asked
  return status;
}

}  // namespace coimg::add_cow
