// Refcounts of another width: the whole structure is made anew beside the old one.
//
// Format: qcow2, section "Changing the refcount width".
#include <fmt/format.h>

#include <utility>

#include "block/util/math.h"
#include "formats/qcow2/qcow2.h"
#include "formats/qcow2/refcount_layout.h"
#include "formats/qcow2/refcount_scan.h"

namespace coimg::qcow2 {

/// The caller has the whole disk in flight.
///
/// Errors: EINVAL when a refcount does not fit, EUCLEAN when clusters far beyond the end of the file count as used;
/// nothing has changed then.
/// Crash: the new structures are complete before the header refers to them, in one write; after that the old ones leak.
Result<void> Qcow2::change_refcount_width_locked(uint32_t order) {
  COIMG_TRY(flush_locked());
  Header header = header_;
  header.refcount_order = order;
  const Geometry geometry = header.geometry();
  ClusterCounts counts = COIMG_TRY(load_refcounts_locked(geometry));
  const RefcountPlacement placement = COIMG_TRY(place_refcounts(counts, geometry, HostCluster(1)));
  COIMG_TRY(write_refcounts(file_, counts, placement, geometry));

  std::vector<uint64_t> old_blocks = refcounts_->entries();
  const HostOffset old_table = refcounts_->table_offset();
  const ClusterCount old_table_clusters(refcounts_->table_clusters());
  header.refcount_table_offset = placement.table_offset;
  header.refcount_table_clusters = static_cast<uint32_t>(placement.table_clusters);
  COIMG_TRY(replace_header_locked(std::move(header)));

  geometry_ = geometry;
  refcount_cache_->trim();
  refcounts_ =
      std::make_unique<RefcountTable>(file_, geometry_, *refcount_cache_, static_cast<RefcountTableOwner&>(*this));
  COIMG_TRY(refcounts_->load(placement.table_offset, static_cast<uint32_t>(placement.table_clusters)));
  for (const uint64_t entry : old_blocks) {
    const HostOffset block(entry & kRefcountTableOffsetMask);
    if (block.v != 0) COIMG_TRY(refcounts_->decrement(geometry_.host_cluster(block), ClusterCount(1)));
  }
  COIMG_TRY(refcounts_->decrement(geometry_.host_cluster(old_table), old_table_clusters));
  return flush_locked();
}

/// All refcounts, with room for new structures of that geometry behind the last cluster in use.
/// Memory: as ClusterCounts.
Result<ClusterCounts> Qcow2::load_refcounts_locked(const Geometry& geometry) {
  const HostCluster end = COIMG_TRY(refcounts_->end_of_used());
  const uint64_t file_clusters = geometry_.clusters_for(file_.length());
  if (end.v > file_clusters + geometry_.refcounts_per_block()) {
    return Error(EUCLEAN, fmt::format("host cluster {:#x} beyond the end of the file counts as used; run 'check -r "
                                      "all' first",
                                      geometry_.host_offset(end).v));
  }
  if (const auto slot = refcounts_->first_unaligned_block(end)) {
    return refcounts_damaged(refcounts_->unaligned_block_message(*slot));
  }
  // Each block counts at least 64 clusters, itself among them; the table has 8 bytes a block.
  constexpr uint64_t kSpareShare = 16, kSpareClusters = 256;
  ClusterCounts counts(end.v + end.v / kSpareShare + kSpareClusters, geometry.refcount_max());

  const uint64_t per_slice = (refcount_cache_->slice_bytes() * 8) >> geometry_.refcount_order();
  for (uint64_t slot = 0; slot < refcounts_->entries().size(); ++slot) {
    const HostOffset block(refcounts_->entries()[slot] & kRefcountTableOffsetMask);
    const HostCluster first(slot * geometry_.refcounts_per_block());
    if (block.v == 0 || first >= end) continue;
    for (uint64_t done = 0; done < geometry_.refcounts_per_block(); done += per_slice) {
      const uint64_t bytes_before = done / per_slice * refcount_cache_->slice_bytes();
      const auto slice = COIMG_TRY(refcount_cache_->load(block + bytes_before));
      COIMG_TRY(add_refcounts(slice.data(), first + done, per_slice, geometry_.refcount_order(), counts));
    }
  }
  return counts;
}

/// The refcounts of a piece of a block, for the clusters from `first` on.
Result<void> Qcow2::add_refcounts(const std::byte* slice, HostCluster first, uint64_t count, uint32_t order,
                                  ClusterCounts& counts) const {
  for (uint64_t i = 0; (i = first_used(slice, i, count, order)) < count; ++i) {
    const uint64_t refcount = read_refcount(slice, i, order);
    if (refcount > counts.max()) {
      return Error(EINVAL, fmt::format("Cannot decrease refcount entry width to {} bits: Cluster at offset {:#x} has a "
                                       "refcount of {}",
                                       std::bit_width(counts.max()), geometry_.host_offset(first + i).v, refcount));
    }
    counts.set(first + i, refcount);
  }
  return {};
}

}  // namespace coimg::qcow2
