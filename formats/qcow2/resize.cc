// Changing the virtual size.
//
// Growing: the L1 table grows first, then everything that would show in the new space is hidden, then the header's size
// changes; preallocation (preallocate.cc) fills the space before it shows. Shrinking: entries beyond the new end are
// dropped from disk before their clusters are freed. Either way a crash leaves an image of the old or the new size, and
// leaks at most.
//
// Format: qcow2, sections "Resize: Grow, Shrink".
#include <fmt/format.h>
#include <spdlog/spdlog.h>

#include <algorithm>
#include <cassert>
#include <utility>

#include "block/util/buffer.h"
#include "block/util/endian.h"
#include "block/util/math.h"
#include "formats/qcow2/qcow2.h"

namespace coimg::qcow2 {

namespace {

/// The header fields that say where the L1 table is; written together, in one sector.
struct DiskL1Location {
  be32 l1_size;
  be64 l1_table_offset;
};
static_assert(sizeof(DiskL1Location) == 12);
static_assert(offsetof(DiskHeaderV2, l1_table_offset) == offsetof(DiskHeaderV2, l1_size) + sizeof(be32));

template <typename T>
std::span<const std::byte> bytes_of(const T& value) {
  return std::as_bytes(std::span(&value, 1));
}

}  // namespace

Result<void> Qcow2::truncate(uint64_t new_length, Preallocation preallocation) {
  COIMG_TRY(check_usable());
  const DamageScope damage(*this);
  if (!is_aligned(new_length, kSectorSize)) return Error(EINVAL, "The new size must be a multiple of 512");
  if (preallocation != Preallocation::kOff && new_length < virtual_size_) {
    return Error(ENOTSUP, "Preallocation can't be used for shrinking an image");
  }
  // Nothing else is in flight until this is done.
  const TrackedRequest everything(in_flight_, 0, kMaxFileOffset, RangeMode::kExclusive);
  return resize_exclusively(new_length, preallocation);
}

Result<void> Qcow2::resize_exclusively(uint64_t new_length, Preallocation preallocation) {
  if (new_length == virtual_size_) return {};
  {
    CoReadGuard guard(lock_);
    if (header_.version < 3 && !snapshots_.empty()) {
      return Error(ENOTSUP, "Can't resize a v2 image which has snapshots");
    }
    if (new_length > kMaxFileOffset - kSectorSize) {
      return Error(EFBIG, "Failed to grow the L1 table: File too large");
    }
  }
  COIMG_TRY(bitmaps_.prepare_resize(new_length));
  const uint64_t old_length = virtual_size_;
  const Result<void> resized = new_length > old_length ? grow(new_length, preallocation) : shrink(new_length);
  if (virtual_size_ == new_length) {  // also when what comes after that failed
    bitmaps_.resize(new_length);
  } else if (new_length < old_length) {  // what lies behind the new end may be gone
    COIMG_TRY(bitmaps_.note_change(new_length, old_length - new_length));
  }
  return resized;
}

// --- growing -------------------------------------------------------------------------------------------------------

Result<void> Qcow2::grow(uint64_t new_length, Preallocation preallocation) {
  {
    CoWriteGuard guard(lock_);
    const uint64_t entries = geometry_.l1_needed(new_length);
    if (entries > l1_table_.size()) {
      if (entries > kMaxL1Entries) return Error(EFBIG, "Failed to grow the L1 table: File too large");
      COIMG_TRY(grow_l1_table_locked(entries).with_context("Failed to grow the L1 table"));
    }
  }
  COIMG_TRY(grow_data_file(new_length, preallocation));
  COIMG_TRY(clear_new_space(virtual_size_, new_length));
  if (preallocation != Preallocation::kOff || raw_data_file_) {
    const GuestOffset first(geometry_.cluster_up(virtual_size_));
    const uint64_t end = geometry_.cluster_up(new_length);
    COIMG_TRY(preallocate_clusters(first, (end - first.v) / geometry_.cluster_size(), preallocation));
  }

  CoWriteGuard guard(lock_);
  COIMG_TRY(flush_locked());  // what hides old content is there before the space is
  return store_size_locked(new_length);
}

/// Makes [old_length, new_length) read as zeros: what an image had in there before it was shrunk, what lies behind the
/// end of its last cluster, and what its backing file has there.
Result<void> Qcow2::clear_new_space(uint64_t old_length, uint64_t new_length) {
  const GuestOffset old_end(old_length);
  const GuestOffset first_new(geometry_.cluster_up(old_length));
  const uint64_t backing_length = backing() ? backing()->length() : 0;

  if (old_end < first_new && !(geometry_.external_data() && backing_length <= old_length)) {
    std::vector<Extent> last;
    {
      CoWriteGuard guard(lock_);
      last = COIMG_TRY(map_range_locked(old_end, first_new));
    }
    const bool shows_something = std::ranges::any_of(last, [&](const Extent& extent) {
      const bool stored = extent.type == ClusterType::kNormal || extent.type == ClusterType::kCompressed;
      return stored || (extent.type == ClusterType::kUnallocated && backing_length > old_length);
    });
    if (shows_something) COIMG_TRY(write_zero_bytes(old_end, first_new - old_end));
  }
  const uint64_t end = geometry_.cluster_up(new_length);
  if (first_new.v >= end) return {};
  COIMG_TRY(rewrite_entries(first_new, (end - first_new.v) / geometry_.cluster_size(), MissingTables::kSkip,
                            FreedSpace::kDiscard, [](uint64_t, L2Entry) { return L2Entry(); }));

  const uint64_t backed_end = std::min(end, geometry_.cluster_up(backing_length));
  if (backed_end <= first_new.v) return {};
  const uint64_t backed_bytes = backed_end - first_new.v;
  uint32_t version = 3;
  {
    CoReadGuard guard(lock_);
    version = header_.version;
  }
  if (version < 3) return write_zero_bytes(first_new, backed_bytes);  // there are no zero clusters
  return zero_clusters(first_new, backed_bytes / geometry_.cluster_size(), /*may_unmap=*/true);
}

Result<void> Qcow2::grow_l1_table_locked(uint64_t entries) {
  const uint64_t bytes = entries * sizeof(be64);
  const ClusterCount clusters(geometry_.clusters_for(bytes));
  file_.debug_event(DebugEvent::kL1GrowAllocTable);
  const HostCluster first = COIMG_TRY(refcounts_->allocate(clusters));
  const HostOffset offset = geometry_.host_offset(first);

  // Whole clusters are written, so that the table never ends in what somebody else left there.
  AlignedBuffer table = AlignedBuffer::zeroed(clusters.v << geometry_.cluster_bits());
  std::ranges::transform(l1_table_, reinterpret_cast<be64*>(table.data()), &L1Entry::raw);
  Result<void> written = check_overlap_locked(offset, table.size());
  if (written.ok()) written = refcount_cache_->write_back();
  file_.debug_event(DebugEvent::kL1GrowWriteTable);
  if (written.ok()) written = file_.co_pwrite(offset.v, table.span());
  if (written.ok()) written = file_.co_flush();
  if (!written.ok()) {
    refcounts_->free_best_effort(first, clusters);
    return written;
  }

  const HostOffset old_offset = header_.l1_table_offset;
  const uint32_t old_entries = header_.l1_size;
  file_.debug_event(DebugEvent::kL1GrowActivateTable);
  auto stored = store_l1_location_locked(offset, static_cast<uint32_t>(entries));
  if (!stored.ok()) {
    // Which table the header refers to is not known. It must not be one that is not kept up.
    if (store_l1_location_locked(old_offset, old_entries).ok()) return stored;
    return corruption("the header may refer to an L1 table that is out of date", true);
  }
  l1_table_.resize(entries);
  note_metadata(offset, table.size(), true);

  const uint64_t old_bytes = old_entries * uint64_t{sizeof(be64)};
  if (old_bytes == 0) return {};
  const ClusterCount old_clusters(geometry_.clusters_for(old_bytes));
  note_metadata(old_offset, old_clusters.v << geometry_.cluster_bits(), false);
  return refcounts_->decrement(geometry_.host_cluster(old_offset), old_clusters, freed(options_.discard_other));
}

/// Durable when it returns.
Result<void> Qcow2::store_l1_location_locked(HostOffset offset, uint32_t entries) {
  const DiskL1Location stored{.l1_size = entries, .l1_table_offset = offset.v};
  COIMG_TRY(file_.co_pwrite(offsetof(DiskHeaderV2, l1_size), bytes_of(stored)));
  COIMG_TRY(file_.co_flush());
  header_.l1_size = entries;
  header_.l1_table_offset = offset;
  return {};
}

Result<void> Qcow2::store_size_locked(uint64_t new_length) {
  const be64 stored(new_length);
  Result<void> written =
      file_.co_pwrite(offsetof(DiskHeaderV2, size), bytes_of(stored)).with_context("writing the new size");
  if (written.ok()) written = file_.co_flush();
  if (!written.ok()) {
    bitmaps_.distrust();
    return written;
  }
  header_.size = new_length;
  virtual_size_ = new_length;
  return {};
}

// --- shrinking -----------------------------------------------------------------------------------------------------

Result<void> Qcow2::shrink(uint64_t new_length) {
  const GuestOffset first_gone(geometry_.cluster_up(new_length));
  const uint64_t tables_left = geometry_.l1_needed(new_length);
  const uint64_t gone_end = std::min(geometry_.cluster_up(virtual_size_), tables_left * geometry_.l2_coverage());
  if (first_gone.v < gone_end) {  // in a table that stays
    COIMG_TRY(rewrite_entries(first_gone, (gone_end - first_gone.v) / geometry_.cluster_size(), MissingTables::kSkip,
                              FreedSpace::kDiscard, [](uint64_t, L2Entry) { return L2Entry(); }));
  }

  CoWriteGuard guard(lock_);
  COIMG_TRY(drop_l2_tables_locked(tables_left, l1_table_.size(), FreedSpace::kDiscard));
  COIMG_TRY(flush_locked());
  COIMG_TRY(refcounts_->drop_empty_blocks());
  COIMG_TRY(store_size_locked(new_length));
  truncate_file_best_effort_locked();
  refcounts_->reclaim_freed();
  if (!geometry_.external_data() || data_.exact_length() <= new_length) return {};
  return data_.co_truncate(new_length).with_context("resizing the data file");
}

/// Takes the tables of L1 entries [begin, end) out of the L1 table, then frees them and what they refer to.
Result<void> Qcow2::drop_l2_tables_locked(uint64_t begin, uint64_t end, FreedSpace space) {
  if (begin >= end) return {};
  const std::vector<L1Entry> dropped(l1_table_.begin() + static_cast<ptrdiff_t>(begin),
                                     l1_table_.begin() + static_cast<ptrdiff_t>(end));
  if (std::ranges::none_of(dropped, &L1Entry::has_table)) return {};
  const auto zeros = AlignedBuffer::zeroed(dropped.size() * sizeof(be64));
  file_.debug_event(DebugEvent::kL1ShrinkWriteTable);
  COIMG_TRY(file_.co_pwrite(header_.l1_table_offset.v + begin * sizeof(be64), zeros.span())
                .with_context("clearing L1 entries"));
  COIMG_TRY(file_.co_flush());
  std::fill(l1_table_.begin() + static_cast<ptrdiff_t>(begin), l1_table_.begin() + static_cast<ptrdiff_t>(end),
            L1Entry());
  file_.debug_event(DebugEvent::kL1ShrinkFreeL2Clusters);
  for (const L1Entry entry : dropped) {
    if (entry.has_table()) COIMG_TRY(free_l2_table_locked(entry.l2_table(), space));
  }
  return {};
}

/// Frees a table that the L1 table on disk does not refer to any more. With one that snapshots share only the
/// references that came through the active L1 table go.
Result<void> Qcow2::free_l2_table_locked(HostOffset table, FreedSpace space) {
  const DroppedReferences dropped = COIMG_TRY(collect_references_locked(table));
  const HostCluster cluster = geometry_.host_cluster(table);
  const bool last_user = COIMG_TRY(refcounts_->refcount(cluster)) == 1;
  if (last_user) {
    l2_cache_->forget(table, geometry_.cluster_size());
    note_metadata(table, geometry_.cluster_size(), false);
  }
  for (const ClusterRun& run : dropped.runs()) {
    COIMG_TRY(refcounts_->decrement(run.first, run.count(), space));
  }
  return {};
}

/// Gives the end of the file back to the host, behind the last cluster in use.
void Qcow2::truncate_file_best_effort_locked() {
  auto end = refcounts_->end_of_used();
  Result<void> outcome;
  if (!end.ok()) {
    outcome = std::move(end).error();
  } else if (const uint64_t length = geometry_.host_offset(*end).v; length < file_.exact_length()) {
    outcome = file_.co_truncate(length);
  }
  if (!outcome.ok()) spdlog::warn("the image file could not be shortened: {}", outcome.error().message());
}

}  // namespace coimg::qcow2
