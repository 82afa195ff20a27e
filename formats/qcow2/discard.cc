// Zeroing and discarding guest clusters by changing their L2 entries.
//
// Format: qcow2, sections "Zero clusters, write-zeroes, discard".
#include <algorithm>

#include "block/util/buffer.h"
#include "block/util/math.h"
#include "formats/qcow2/qcow2.h"

namespace coimg::qcow2 {

/// Also when the header names none but the user gave one, or the other way round: old data may show either way.
bool Qcow2::has_backing_locked() const { return backing() != nullptr || !header_.backing_file.empty(); }

// --- zeroing -------------------------------------------------------------------------------------------------------

/// The whole clusters of the range change their entries. Of what is left, a whole subcluster does so as well; a piece
/// of one does if its rest reads as zeros anyway, and is written otherwise. ENOTSUP where zeros could only be written.
Result<void> Qcow2::pwrite_zeroes(uint64_t offset, uint64_t bytes, const ZeroOptions& options) {
  COIMG_TRY(check_usable());
  const DamageScope damage(*this);
  const GuestOffset guest(offset), end = guest + bytes;
  if (options.placement) options.placement->wait_turn();
  const uint64_t first_cluster = geometry_.cluster_down(offset);
  const TrackedRequest request(in_flight_, first_cluster, geometry_.cluster_up(end.v) - first_cluster,
                               RangeMode::kExclusive);
  COIMG_TRY(bitmaps_.note_change(offset, bytes));
  {
    CoReadGuard guard(lock_);
    if (header_.version < 3 && has_backing_locked()) {
      return Error(ENOTSUP, "version 2 images with a backing file have no zero clusters");
    }
  }

  // The end of the disk completes its last cluster.
  const GuestOffset aligned_end(end.v == virtual_size_ ? geometry_.cluster_up(end.v) : geometry_.cluster_down(end.v));
  const GuestOffset aligned_start(geometry_.cluster_up(offset));
  if (aligned_start > aligned_end) {  // inside one cluster
    return zero_inside_cluster(guest, end, /*may_write=*/false);
  }
  const bool may_write = !options.no_fallback;
  if (guest < aligned_start) COIMG_TRY(zero_inside_cluster(guest, std::min(aligned_start, end), may_write));
  if (aligned_end < end) COIMG_TRY(zero_inside_cluster(aligned_end, end, may_write));
  return zero_clusters(aligned_start, (aligned_end - aligned_start) / geometry_.cluster_size(), options.may_unmap);
}

/// Zeroes a part of one cluster. ENOTSUP when that takes writing and `may_write` is not set.
Result<void> Qcow2::zero_inside_cluster(GuestOffset from, GuestOffset to, bool may_write) {
  const uint64_t unit = geometry_.state_unit();
  while (from < to) {
    const GuestOffset unit_end(align_down(from.v, unit) + unit);
    const GuestOffset end = std::min(to, unit_end);
    const bool whole = align_down(from.v, unit) == from.v && (end == unit_end || end.v == virtual_size_);
    if (!COIMG_TRY(zero_whole_unit(from, whole ? unit : end - from, whole))) {
      if (!may_write) return Error(ENOTSUP, "only a part of a cluster would become zeros");
      COIMG_TRY(write_zero_bytes(from, end - from));
    }
    from = end;
  }
  return {};
}

/// Lets the unit at `offset` read as zeros if that changes nothing but the `bytes` from there on. Returns false when
/// they have to be written.
Result<bool> Qcow2::zero_whole_unit(GuestOffset offset, uint64_t bytes, bool whole) {
  const GuestOffset start(align_down(offset.v, geometry_.state_unit()));
  Extent old;
  bool backed = false;
  {
    CoReadGuard guard(lock_);
    old = COIMG_TRY(map_locked(start, geometry_.state_unit()));
    backed = has_backing_locked();
  }
  if (old.type == ClusterType::kZeroPlain || old.type == ClusterType::kZeroAllocated) return true;
  if (old.type == ClusterType::kCompressed) return false;
  if (!whole) {
    if (old.type == ClusterType::kNormal) return false;
    if (backed && !COIMG_TRY(backing_is_zero_around(offset, bytes))) return false;
  }
  if (!geometry_.extended_l2()) {
    COIMG_TRY(zero_clusters(start, 1, /*may_unmap=*/false));
    return true;
  }
  COIMG_TRY(zero_raw_data_file(start, geometry_.state_unit(), /*may_unmap=*/false));
  const uint32_t subcluster = geometry_.subcluster_of(start.v);
  COIMG_TRY(rewrite_entries(GuestOffset(geometry_.cluster_down(start.v)), 1, MissingTables::kMake, FreedSpace::kKeep,
                            [subcluster](uint64_t, L2Entry entry) {
                              return entry.with_map(
                                  entry.map().with_zero(SubclusterMap::mask(subcluster, subcluster + 1)));
                            }));
  return true;
}

/// Whether what the backing file has for the range's unit, outside of the range, is zeros.
Result<bool> Qcow2::backing_is_zero_around(GuestOffset offset, uint64_t bytes) {
  const GuestOffset unit(align_down(offset.v, geometry_.state_unit()));
  const uint64_t size = std::min(geometry_.state_unit(), virtual_size_ - unit.v);
  AlignedBuffer content(size);
  COIMG_TRY(read_backing(unit, IoVector(content.span())));
  const uint64_t before = offset - unit;
  const uint64_t behind = std::min(size, before + bytes);
  return is_zero(content.span().first(before)) && is_zero(content.span().subspan(behind));
}

Result<void> Qcow2::zero_clusters(GuestOffset first, uint64_t clusters, bool may_unmap) {
  uint32_t version = 3;
  {
    CoReadGuard guard(lock_);
    version = header_.version;
  }
  if (version < 3) return discard_clusters(first, clusters, FreedSpace::kKeep);  // no backing file: reads as zeros
  COIMG_TRY(zero_raw_data_file(first, clusters << geometry_.cluster_bits(), may_unmap));
  return rewrite_entries(first, clusters, MissingTables::kMake, FreedSpace::kKeep,
                         [may_unmap, this](uint64_t, L2Entry old) {
                           const ClusterType type = old.type();
                           const bool placed = type == ClusterType::kNormal || type == ClusterType::kZeroAllocated;
                           return placed && !may_unmap ? old.zeroed(geometry_) : L2Entry::zero_plain(geometry_);
                         });
}

// --- discarding ----------------------------------------------------------------------------------------------------

Result<void> Qcow2::pdiscard(uint64_t offset, uint64_t bytes) {
  COIMG_TRY(check_usable());
  const DamageScope damage(*this);
  const uint64_t end = offset + bytes;
  const uint64_t first = geometry_.cluster_up(offset);
  const uint64_t aligned_end = end == virtual_size_ ? geometry_.cluster_up(end) : geometry_.cluster_down(end);
  if (first >= aligned_end) return {};
  const TrackedRequest request(in_flight_, first, aligned_end - first, RangeMode::kExclusive);
  COIMG_TRY(bitmaps_.note_change(first, aligned_end - first));
  return discard_clusters(GuestOffset(first), (aligned_end - first) / geometry_.cluster_size(),
                          freed(passes_discards()));
}

/// Discarded clusters read as zeros. Where the format cannot say so without showing the backing file nothing happens.
Result<void> Qcow2::discard_clusters(GuestOffset first, uint64_t clusters, FreedSpace space) {
  const uint64_t bytes = clusters << geometry_.cluster_bits();
  COIMG_TRY(zero_raw_data_file(first, bytes, /*may_unmap=*/passes_discards()));
  bool backed = false;
  uint32_t version = 3;
  {
    CoReadGuard guard(lock_);
    backed = has_backing_locked();
    version = header_.version;
  }
  if (version < 3) {
    if (backed) return {};
    return rewrite_entries(first, clusters, MissingTables::kSkip, space, [](uint64_t, L2Entry) { return L2Entry(); });
  }
  COIMG_TRY(rewrite_entries(first, clusters, backed ? MissingTables::kMake : MissingTables::kSkip, space,
                            [backed, this](uint64_t, L2Entry old) {
                              const bool stays = !backed && old.type() == ClusterType::kUnallocated;
                              return stays ? old : L2Entry::zero_plain(geometry_);
                            }));
  return discard_data_file(first, bytes);
}

Result<void> Qcow2::rewrite_entries(GuestOffset first, uint64_t clusters, MissingTables missing, FreedSpace space,
                                    const EntryUpdate& update) {
  while (clusters > 0) {
    DroppedReferences dropped;
    uint64_t done = 0;
    {
      CoWriteGuard guard(lock_);
      const uint64_t l1_index = geometry_.l1_index(first);
      if (missing == MissingTables::kSkip && (l1_index >= l1_table_.size() || !l1_table_[l1_index].has_table())) {
        done = std::min(clusters, geometry_.l2_entries() - geometry_.l2_index(first));
      } else {
        done = COIMG_TRY(update_entries_locked(first, clusters, update, dropped));
      }
    }
    COIMG_TRY(drop_references(dropped, space));
    first += done << geometry_.cluster_bits();
    clusters -= done;
  }
  return {};
}

}  // namespace coimg::qcow2
