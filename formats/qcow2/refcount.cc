// Looking refcounts up, changing them, and finding free clusters.
//
// Clusters are handed out first-fit. Whatever fails, refcounts are as they were before: changes are undone in memory,
// as nothing depends on the disk having seen them.
//
// Format: qcow2, sections "Allocation search", "Packing", "Update rules".
#include "formats/qcow2/refcount.h"

#include <fmt/format.h>
#include <spdlog/spdlog.h>

#include <algorithm>
#include <bit>
#include <cassert>
#include <utility>

#include "block/util/endian.h"
#include "block/util/hex.h"
#include "block/util/math.h"
#include "formats/qcow2/ordered_reads.h"
#include "formats/qcow2/refcount_scan.h"

namespace coimg::qcow2 {

namespace {

/// Freed space that has to wait for a flush of the L2 tables is at most this; then the flush is made.
constexpr uint64_t kMaxUnsettledBytes = 64 * kMiB;

}  // namespace

RefcountTable::RefcountTable(BlockNode& file, Geometry geometry, MetadataCache& blocks, RefcountTableOwner& owner)
    : file_(file), geometry_(geometry), blocks_(blocks), owner_(owner) {}

Result<void> RefcountTable::load(HostOffset offset, uint32_t clusters) {
  CoMutexGuard guard(lock_);
  const uint64_t bytes = uint64_t{clusters} << geometry_.cluster_bits();
  assert(bytes <= kMaxRefcountTableBytes);
  AlignedBuffer table(bytes);
  file_.debug_event(DebugEvent::kReftableLoad);
  COIMG_TRY(file_.co_pread(offset.v, table.span()).with_context("reading the refcount table"));

  entries_.resize(bytes / sizeof(be64));
  const auto* const stored = reinterpret_cast<const be64*>(table.data());
  std::ranges::copy_n(stored, static_cast<ptrdiff_t>(entries_.size()), entries_.begin());
  table_offset_ = offset;
  table_clusters_ = clusters;
  free_hints_.fill(HostCluster(0));
  compressed_cursor_ = HostOffset(0);
  unsettled_.clear();
  to_discard_.clear();
  owner_.refcount_table_loaded();
  return {};
}

// --- looking up ----------------------------------------------------------------------------------------------------

Result<uint64_t> RefcountTable::refcount(HostCluster cluster) {
  CoMutexGuard guard(lock_);
  return refcount_locked(cluster);
}

Result<uint64_t> RefcountTable::refcount_locked(HostCluster cluster) {
  const Window window = COIMG_TRY(window_locked(cluster));
  if (!window.pin) return uint64_t{0};
  return read_refcount(window.pin.data(), window.index, geometry_.refcount_order());
}

Result<RefcountTable::Window> RefcountTable::window_locked(HostCluster cluster) {
  const uint64_t in_block = cluster.v % geometry_.refcounts_per_block();
  const HostOffset block = block_offset(slot_of(cluster));
  Window window;
  if (block.v == 0) {
    window.count = geometry_.refcounts_per_block() - in_block;
    return window;
  }
  if (geometry_.in_cluster(block.v) != 0) {
    return owner_.refcounts_damaged(unaligned_block_message(slot_of(cluster)));
  }
  const uint64_t per_slice = (blocks_.slice_bytes() * 8) >> geometry_.refcount_order();
  window.pin = COIMG_TRY(blocks_.load(block + in_block / per_slice * blocks_.slice_bytes()));
  window.index = in_block % per_slice;
  window.count = per_slice - window.index;
  return window;
}

/// The first cluster from `from` on whose refcount is zero. EFBIG when there is none below `limit`.
Result<HostCluster> RefcountTable::next_free_locked(HostCluster from, HostCluster limit) {
  HostCluster cluster = from;
  while (cluster < limit) {
    const Window window = COIMG_TRY(window_locked(cluster));
    if (!window.pin) return cluster;
    const uint64_t end = window.index + window.count;
    const uint64_t found = first_free(window.pin.data(), window.index, end, geometry_.refcount_order());
    cluster += found - window.index;
    if (found != end) return cluster;
  }
  return Error(EFBIG, fmt::format("no free host cluster below cluster {}", limit.v));
}

std::optional<uint64_t> RefcountTable::first_unaligned_block(HostCluster end) const {
  const uint64_t slots = std::min<uint64_t>(div_ceil(end.v, geometry_.refcounts_per_block()), entries_.size());
  for (uint64_t slot = 0; slot < slots; ++slot) {
    if (geometry_.in_cluster(block_offset(slot).v) != 0) return slot;
  }
  return std::nullopt;
}

std::string RefcountTable::unaligned_block_message(uint64_t slot) const {
  return fmt::format("Refblock offset {} unaligned (reftable index: {})", c_hex(block_offset(slot).v), c_hex(slot));
}

Result<bool> RefcountTable::has_used(uint64_t wanted, HostCluster end) {
  constexpr unsigned kBlocksInFlight = 8;
  CoMutexGuard guard(lock_);
  const uint64_t per_block = geometry_.refcounts_per_block();
  const uint32_t order = geometry_.refcount_order();
  const uint64_t slots = std::min<uint64_t>(div_ceil(end.v, per_block), entries_.size());
  uint64_t slot = 0, used = 0;
  const auto next_block = [&]() -> std::optional<OrderedRead> {
    while (slot < slots && block_offset(slot).v == 0) ++slot;
    if (slot == slots || used >= wanted) return std::nullopt;
    const uint64_t tag = slot++;
    return OrderedRead{block_offset(tag), geometry_.cluster_size(), tag};
  };
  const auto count_block = [&](const OrderedRead& read, const Result<void>& status,
                               std::span<std::byte> block) -> Result<void> {
    COIMG_TRY(status);
    used += count_used(block.data(), std::min(per_block, end.v - read.tag * per_block), order);
    return {};
  };
  COIMG_TRY(read_in_order(file_, kBlocksInFlight, geometry_.cluster_size(), next_block, count_block));
  return used >= wanted;
}

/// How many clusters from `first` on have refcount zero, counted up to `most`.
Result<ClusterCount> RefcountTable::free_run_length_locked(HostCluster first, ClusterCount most) {
  ClusterCount length;
  while (length < most) {
    const Window window = COIMG_TRY(window_locked(first + length.v));
    const uint64_t count = std::min(window.count, most.v - length.v);
    if (!window.pin) {
      length += count;
      continue;
    }
    const uint64_t end = window.index + count;
    const uint64_t found = first_used(window.pin.data(), window.index, end, geometry_.refcount_order());
    length += found - window.index;
    if (found != end) break;
  }
  return length;
}

/// The first run of `count` clusters, all below `limit`, that are free and may be handed out. Changes nothing.
Result<HostCluster> RefcountTable::find_free_run_locked(ClusterCount count, HostCluster limit) {
  assert(count.v > 0);
  HostCluster start = free_hints_[free_hint_for(count)];
  for (;;) {
    start = COIMG_TRY(next_free_locked(start, limit));
    if (start.v == 0) return owner_.refcounts_damaged("refcount of the header cluster is zero");
    if (count.v > limit - start) {
      return Error(EFBIG, fmt::format("no room for {} host clusters below cluster {}", count.v, limit.v));
    }
    if (const auto unsettled = unsettled_.first_overlap(start, count)) {
      start = unsettled->end;  // what lies before it is too short
      continue;
    }
    const ClusterCount length = COIMG_TRY(free_run_length_locked(start, count));
    if (length == count) return start;
    start += length.v;
  }
}

// --- changing --------------------------------------------------------------------------------------------------------

Result<void> RefcountTable::increment(HostCluster first, ClusterCount count) {
  CoMutexGuard guard(lock_);
  while (COIMG_TRY(ensure_blocks_locked(first, count))) {
  }
  return change_locked(first, count, {.change = Change::kIncrement});
}

Result<void> RefcountTable::decrement(HostCluster first, ClusterCount count, FreedSpace space) {
  file_.debug_event(DebugEvent::kClusterFree);
  CoMutexGuard guard(lock_);
  return change_locked(first, count, {.change = Change::kDecrement, .space = space});
}

void RefcountTable::free_best_effort(HostCluster first, ClusterCount count) {
  CoMutexGuard guard(lock_);
  undo_best_effort_locked(first, count, {.change = Change::kDecrement, .reusable_at_once = true});
}

/// Changes the refcounts of all clusters or of none. For increments all blocks must be there.
Result<void> RefcountTable::change_locked(HostCluster first, ClusterCount count, Update update) {
  for (uint64_t done = 0; done < count.v;) {
    auto changed = change_window_locked(first + done, count.v - done, update);
    if (!changed.ok()) {
      const bool was_increment = update.change == Change::kIncrement;
      undo_best_effort_locked(
          first, ClusterCount(done),
          {.change = was_increment ? Change::kDecrement : Change::kIncrement, .reusable_at_once = true});
      return std::move(changed).error().with_context(fmt::format("{} refcounts of {} host clusters from {:#x} on",
                                                                 was_increment ? "raising" : "lowering", count.v,
                                                                 geometry_.host_offset(first).v));
    }
    done += *changed;
  }
  return {};
}

/// change_locked() for the first clusters, those whose refcounts lie in one slice; returns how many these are. Either
/// all of them change or none.
Result<uint64_t> RefcountTable::change_window_locked(HostCluster first, uint64_t count, Update update) {
  const uint32_t order = geometry_.refcount_order();
  const Window window = COIMG_TRY(window_locked(first));
  count = std::min(count, window.count);
  const bool increment = update.change == Change::kIncrement;
  assert(!increment || window.pin);
  if (!window.pin) {
    return owner_.refcounts_damaged(
        fmt::format("freeing host cluster {:#x}, which is free already", geometry_.host_offset(first).v));
  }

  const uint64_t forbidden = increment ? geometry_.refcount_max() : 0;
  for (uint64_t i = 0; i < count; ++i) {
    if (read_refcount(window.pin.data(), window.index + i, order) != forbidden) continue;
    const uint64_t offset = geometry_.host_offset(first + i).v;
    if (increment) return Error(EINVAL, fmt::format("the refcount of host cluster {:#x} is at its maximum", offset));
    return owner_.refcounts_damaged(fmt::format("freeing host cluster {:#x}, which is free already", offset));
  }
  for (uint64_t i = 0; i < count; ++i) {
    const uint64_t old = read_refcount(window.pin.data(), window.index + i, order);
    write_refcount(window.pin.data(), window.index + i, order, increment ? old + 1 : old - 1);
    if (!increment && old == 1) note_freed_locked(first + i, update);
  }
  blocks_.mark_dirty(window.pin);
  if (increment) note_used_locked(first, ClusterCount(count));
  return count;
}

void RefcountTable::undo_best_effort_locked(HostCluster first, ClusterCount count, Update update) {
  for (uint64_t done = 0; done < count.v;) {
    auto changed = change_window_locked(first + done, count.v - done, update);
    if (!changed.ok()) {
      spdlog::warn("{} host clusters from {:#x} on are leaked: {}", count.v - done,
                   geometry_.host_offset(first + done).v, changed.error().message());
      return;
    }
    done += *changed;
  }
}

/// Bookkeeping for clusters that got a reference.
void RefcountTable::note_used_locked(HostCluster first, ClusterCount count) {
  if (!unsettled_.empty()) unsettled_.erase(first, count);
  if (!to_discard_.empty()) to_discard_.erase(first, count);
}

/// Bookkeeping for a cluster that lost its last reference.
void RefcountTable::note_freed_locked(HostCluster cluster, Update update) {
  for (HostCluster& hint : free_hints_) hint = std::min(hint, cluster);
  // All streams in the cluster are gone, so no further one may be appended: the next owner may be anybody.
  if (compressed_cursor_.v != 0 && geometry_.host_cluster(compressed_cursor_) == cluster) {
    compressed_cursor_ = HostOffset(0);
  }
  if (!update.reusable_at_once && blocks_.has_unsettled_dependency()) unsettled_.insert(cluster, ClusterCount(1));
  if (update.space == FreedSpace::kDiscard) to_discard_.insert(cluster, ClusterCount(1));
}

/// Lets go of freed clusters when all that referred to them has gone from disk.
void RefcountTable::release_settled_locked() {
  if (unsettled_.empty() || blocks_.has_unsettled_dependency()) return;
  const HostCluster lowest = unsettled_.runs().front().first;
  for (HostCluster& hint : free_hints_) hint = std::min(hint, lowest);  // searches have passed by
  unsettled_.clear();
}

void RefcountTable::reclaim_freed() {
  CoMutexGuard guard(lock_);
  release_settled_locked();
  if (!unsettled_.empty()) return;
  while (!to_discard_.empty()) {
    const ClusterRun run = to_discard_.runs().front();
    to_discard_.erase(run.first, run.count());
    auto discarded = file_.co_pdiscard(geometry_.host_offset(run.first).v, run.count().v << geometry_.cluster_bits());
    if (!discarded.ok()) spdlog::debug("discarding freed clusters: {}", discarded.error().message());
  }
}

// --- allocating -----------------------------------------------------------------------------------------------------

/// Finds `count` consecutive free host clusters and sets their refcounts to one.
///
/// The search starts at the free hint, so a new image fills front to back. `count` is greater than zero. Returns the
/// first cluster of the run.
///
/// Context: coroutine; yields while a refcount block is read or created.
/// Errors:  EFBIG past the last host offset that a table entry can express, EIO for damaged refcounts, else what the
///          node reported. No refcount has changed then; only if undoing fails too do clusters leak, which is logged.
/// Crash:   the new refcounts are only cached. Whoever stores a reference to the run makes that cache depend on
///          blocks(); a crash in between costs a leak, never a cluster in use that counts as free.
/// Format:  qcow2, "Allocation search".
Result<HostCluster> RefcountTable::allocate(ClusterCount count) {
  file_.debug_event(DebugEvent::kClusterAlloc);
  CoMutexGuard guard(lock_);
  return allocate_locked(count, HostCluster(kMaxHostOffset >> geometry_.cluster_bits()));
}

Result<HostCluster> RefcountTable::allocate_locked(ClusterCount count, HostCluster limit) {
  release_settled_locked();
  if (unsettled_.size().v << geometry_.cluster_bits() > kMaxUnsettledBytes) {
    COIMG_TRY(blocks_.write_back());
    release_settled_locked();
  }
  HostCluster start;
  do {  // a new refcount block may have been put where the run was meant to be
    start = COIMG_TRY(find_free_run_locked(count, limit));
  } while (COIMG_TRY(ensure_blocks_locked(start, count)));
  COIMG_TRY(change_locked(start, count, {.change = Change::kIncrement}));
  free_hints_[free_hint_for(count)] = start + count.v;
  return start;
}

Result<ClusterCount> RefcountTable::allocate_at(HostCluster at, ClusterCount count) {
  CoMutexGuard guard(lock_);
  const HostCluster limit(kMaxHostOffset >> geometry_.cluster_bits());
  if (at.v == 0 || at >= limit) return ClusterCount(0);
  count = std::min(count, ClusterCount(limit - at));
  release_settled_locked();
  do {
    if (const auto unsettled = unsettled_.first_overlap(at, count)) count = ClusterCount(unsettled->first - at);
    count = COIMG_TRY(free_run_length_locked(at, count));
    if (count.v == 0) return count;
  } while (COIMG_TRY(ensure_blocks_locked(at, count)));
  COIMG_TRY(change_locked(at, count, {.change = Change::kIncrement}));
  return count;
}

Result<HostOffset> RefcountTable::allocate_bytes(uint64_t bytes) {
  CoMutexGuard guard(lock_);
  return allocate_stream_locked(bytes);
}

Result<std::vector<HostOffset>> RefcountTable::allocate_streams(std::span<const uint64_t> lengths) {
  CoMutexGuard guard(lock_);
  std::vector<HostOffset> offsets;
  offsets.reserve(lengths.size());
  for (const uint64_t bytes : lengths) {
    auto offset = allocate_stream_locked(bytes);
    if (!offset.ok()) {
      for (size_t i = 0; i < offsets.size(); ++i) {
        const ClusterRun touched = stream_clusters(offsets[i], lengths[i]);
        undo_best_effort_locked(touched.first, touched.count(),
                                {.change = Change::kDecrement, .reusable_at_once = true});
      }
      return std::move(offset).error();
    }
    offsets.push_back(*offset);
  }
  return offsets;
}

Result<HostOffset> RefcountTable::allocate_stream_locked(uint64_t bytes) {
  file_.debug_event(DebugEvent::kClusterAllocBytes);
  const uint64_t cluster_size = geometry_.cluster_size();
  assert(bytes > 0 && bytes <= cluster_size);
  if (compressed_cursor_.v != 0) {
    const uint64_t shared_by = COIMG_TRY(refcount_locked(geometry_.host_cluster(compressed_cursor_)));
    if (shared_by == geometry_.refcount_max()) compressed_cursor_ = HostOffset(0);
  }
  const HostOffset cursor = compressed_cursor_;
  const uint64_t room = cursor.v ? cluster_size - geometry_.in_cluster(cursor.v) : 0;

  HostOffset offset = cursor;
  if (room >= bytes) {
    COIMG_TRY(change_locked(geometry_.host_cluster(cursor), ClusterCount(1), {.change = Change::kIncrement}));
  } else {
    const HostCluster fresh = COIMG_TRY(allocate_locked(ClusterCount(1), stream_limit()));
    const bool continues = cursor.v != 0 && geometry_.host_offset(fresh).v == cursor.v + room;
    if (continues) {
      auto shared = change_locked(geometry_.host_cluster(cursor), ClusterCount(1), {.change = Change::kIncrement});
      if (!shared.ok()) {
        undo_best_effort_locked(fresh, ClusterCount(1), {.change = Change::kDecrement, .reusable_at_once = true});
        return std::move(shared).error();
      }
    } else {
      offset = geometry_.host_offset(fresh);
    }
  }
  const HostOffset end = offset + bytes;
  compressed_cursor_ = geometry_.in_cluster(end.v) ? end : HostOffset(0);
  return offset;
}

/// The host clusters that a stream touches.
ClusterRun RefcountTable::stream_clusters(HostOffset offset, uint64_t bytes) const {
  return {geometry_.host_cluster(offset), geometry_.host_cluster(offset + (bytes - 1)) + 1};
}

/// The first cluster that compressed entries cannot address.
HostCluster RefcountTable::stream_limit() const {
  const uint32_t bits = std::min(geometry_.compressed_offset_bits(), 56u);
  return HostCluster((uint64_t{1} << bits) >> geometry_.cluster_bits());
}

}  // namespace coimg::qcow2
