// From version 3 to version 2, which has no zero clusters and no features.
//
// Format: qcow2, section "Downgrade to v2".
#include <fmt/format.h>

#include <algorithm>
#include <set>

#include "formats/qcow2/qcow2.h"

namespace coimg::qcow2 {

namespace {

bool is_zero(L2Entry entry) {
  return entry.type() == ClusterType::kZeroPlain || entry.type() == ClusterType::kZeroAllocated;
}

}  // namespace

/// Refuses what version 2 cannot express. Nothing has changed yet; refcounts will be of 1 << `refcount_order` bits.
Result<void> Qcow2::check_downgrade_locked(uint32_t refcount_order) {
  if (refcount_order != kDefaultRefcountOrder) return Error(ENOTSUP, "compat=0.10 requires refcount_bits=16");
  if (geometry_.external_data()) return Error(ENOTSUP, "Cannot downgrade an image with a data file");
  constexpr uint64_t kMaxVmState = UINT32_MAX;
  const auto differs = [this](const Snapshot& snapshot) {
    return snapshot.disk_size != virtual_size_ || snapshot.vm_state_bytes > kMaxVmState;
  };
  if (std::ranges::any_of(snapshots_, differs)) {
    return Error(ENOTSUP, "Internal snapshots prevent downgrade of image");
  }
  const uint64_t others = header_.incompatible_features & ~uint64_t{kDirty | kCompressionType};
  if (others != 0) {
    return Error(ENOTSUP, fmt::format("Cannot downgrade an image with incompatible features {:#x} set", others));
  }
  if (header_.bitmaps) return Error(ENOTSUP, "Cannot downgrade an image with bitmaps; remove them first");
  if (compression_type_ == CompressionType::kZlib) return {};

  bool compressed = COIMG_TRY(any_compressed_locked(l1_table_));
  for (const Snapshot& snapshot : snapshots_) {
    const std::vector<L1Entry> table = COIMG_TRY(load_snapshot_l1_locked(snapshot));
    compressed = compressed || COIMG_TRY(any_compressed_locked(table));
  }
  if (!compressed) return {};
  return Error(ENOTSUP, "Cannot downgrade an image with zstd compression type and existing compressed clusters");
}

Result<bool> Qcow2::any_compressed_locked(std::span<const L1Entry> l1_table) {
  for (const L1Entry l1_entry : l1_table) {
    if (!l1_entry.has_table()) continue;
    COIMG_TRY(check_table_offset(l1_entry));
    for (uint64_t index = 0; index < geometry_.l2_entries();) {
      const L2Slice slice = COIMG_TRY(load_l2_slice_locked(l1_entry.l2_table(), index));
      for (size_t i = slice.index; i < slice.entries.size(); ++i, ++index) {
        if (slice.entries[i].type() == ClusterType::kCompressed) return true;
      }
    }
  }
  return false;
}

/// Errors: EIO, reported.
Result<void> Qcow2::check_table_offset(L1Entry entry) {
  if (geometry_.in_cluster(entry.l2_table().v) == 0) return {};
  return corruption(fmt::format("L2 table offset {:#x} unaligned", entry.l2_table().v), true);
}

/// Zero clusters become clusters with zeros, or, with no backing file to show, none at all. Then the header changes.
///
/// Crash: at each instant every cluster reads as before, as does each snapshot's.
Result<void> Qcow2::downgrade(const ProgressCallback& on_progress) {
  for (GuestOffset offset(0); offset.v < virtual_size_;) {
    Extent extent;
    bool backed = false;
    {
      CoReadGuard guard(lock_);
      extent = COIMG_TRY(map_locked(offset, virtual_size_ - offset.v));
      backed = has_backing_locked();
    }
    if (extent.type == ClusterType::kZeroPlain || extent.type == ClusterType::kZeroAllocated) {
      COIMG_TRY(backed ? write_zero_bytes(offset, extent.bytes)
                       : rewrite_entries(offset, geometry_.clusters_for(extent.bytes), MissingTables::kSkip,
                                         FreedSpace::kDiscard, [](uint64_t, L2Entry) { return L2Entry(); }));
    }
    offset += extent.bytes;
    if (on_progress) on_progress(offset.v, virtual_size_);
  }
  CoWriteGuard guard(lock_);
  COIMG_TRY(expand_zeros_of_snapshots_locked());
  Header downgraded = header_;
  downgraded.version = 2;
  downgraded.header_length = sizeof(DiskHeaderV2);
  downgraded.incompatible_features = downgraded.compatible_features = downgraded.autoclear_features = 0;
  downgraded.compression_type = CompressionType::kZlib;
  downgraded.feature_names.clear();
  downgraded.unknown_fields.clear();
  return replace_header_locked(std::move(downgraded));
}

/// L2 tables that snapshots share are changed in place, once: what they show stays the same.
Result<void> Qcow2::expand_zeros_of_snapshots_locked() {
  std::set<HostOffset> done;
  for (const Snapshot& snapshot : snapshots_) {
    for (const L1Entry entry : COIMG_TRY(load_snapshot_l1_locked(snapshot))) {
      if (!entry.has_table() || !done.insert(entry.l2_table()).second) continue;
      COIMG_TRY(check_table_offset(entry));
      COIMG_TRY(expand_zeros_locked(entry.l2_table()));
    }
  }
  return {};
}

Result<void> Qcow2::expand_zeros_locked(HostOffset l2_table) {
  // Each cluster that the table refers to counts as often as the table does.
  const uint64_t references = COIMG_TRY(refcounts_->refcount(geometry_.host_cluster(l2_table)));
  for (uint64_t index = 0; index < geometry_.l2_entries();) {
    const L2Slice slice = COIMG_TRY(load_l2_slice_locked(l2_table, index));
    for (size_t i = slice.index; i < slice.entries.size(); ++i, ++index) {
      const L2Entry old = slice.entries[i];
      if (!is_zero(old)) continue;
      const L2Entry expanded = COIMG_TRY(expanded_zero_locked(old, references));
      slice.entries.store(i, expanded);
      l2_cache_->mark_dirty(slice.pin);
      if (old.type() != ClusterType::kZeroAllocated || expanded.host() == old.host()) continue;
      COIMG_TRY(refcount_cache_->depend_on(*l2_cache_));
      for (uint64_t n = 0; n < references; ++n) {
        COIMG_TRY(refcounts_->decrement(geometry_.host_cluster(old.host()), ClusterCount(1)));
      }
    }
  }
  return {};
}

/// What stands for a zero cluster of a table with that many references.
Result<L2Entry> Qcow2::expanded_zero_locked(L2Entry old, uint64_t references) {
  if (!has_backing_locked()) return L2Entry();
  HostCluster cluster;
  // A place that others refer to as well may hold their data.
  const bool own_place = old.type() == ClusterType::kZeroAllocated &&
                         COIMG_TRY(refcounts_->refcount(geometry_.host_cluster(old.host()))) == references;
  if (own_place) {
    cluster = geometry_.host_cluster(old.host());
  } else {
    cluster = COIMG_TRY(refcounts_->allocate(ClusterCount(1)));
    for (uint64_t n = 1; n < references; ++n) COIMG_TRY(refcounts_->increment(cluster, ClusterCount(1)));
  }
  const HostOffset place = geometry_.host_offset(cluster);
  COIMG_TRY(check_overlap_locked(place, geometry_.cluster_size()));
  COIMG_TRY(file_.co_pwrite_zeroes(place.v, geometry_.cluster_size()));
  COIMG_TRY(order_refcounts_locked());
  l2_cache_->depend_on_data();
  return L2Entry::normal(place).with_copied(references == 1);
}

}  // namespace coimg::qcow2
