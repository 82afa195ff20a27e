// New refcount blocks, larger refcount tables, and dropping blocks that count nothing.
//
// Order on disk: a block is complete before a table slot refers to it, and a table is complete before the header refers
// to it. A crash in between leaks the new clusters at most.
//
// Format: qcow2, sections "Allocating a refcount block", "Growing the refcount table".
#include <fmt/format.h>

#include <algorithm>
#include <cassert>
#include <utility>

#include "block/util/endian.h"
#include "block/util/math.h"
#include "formats/qcow2/refcount.h"
#include "formats/qcow2/refcount_scan.h"

namespace coimg::qcow2 {

namespace {

AlignedBuffer encode_table(std::span<const uint64_t> entries) {
  AlignedBuffer bytes(entries.size() * sizeof(be64));
  std::ranges::copy(entries, reinterpret_cast<be64*>(bytes.data()));
  return bytes;
}

}  // namespace

/// Sees to it that all clusters of the run have a refcount block. True when one had to be made: it may lie inside the
/// run, and there may be more to make.
Result<bool> RefcountTable::ensure_blocks_locked(HostCluster first, ClusterCount count) {
  const uint64_t last_slot = slot_of(first + (count.v - 1));
  file_.debug_event(DebugEvent::kRefblockAlloc);
  for (uint64_t slot = slot_of(first); slot <= last_slot; ++slot) {
    if (block_offset(slot).v != 0) continue;
    COIMG_TRY(add_block_locked(slot).with_context(fmt::format("adding refcount block {}", slot)));
    return true;
  }
  return false;
}

/// Makes a block for `slot`, or another one first that the new block itself needs: the caller looks again.
Result<void> RefcountTable::add_block_locked(uint64_t slot) {
  const HostCluster limit(kMaxHostOffset >> geometry_.cluster_bits());
  const HostCluster cluster = COIMG_TRY(find_free_run_locked(ClusterCount(1), limit));
  const HostOffset block = geometry_.host_offset(cluster);
  const bool describes_itself = slot_of(cluster) == slot;
  if (!describes_itself && block_offset(slot_of(cluster)).v == 0) return add_block_locked(slot_of(cluster));

  COIMG_TRY(owner_.write_back_l2_tables());
  if (!describes_itself) COIMG_TRY(change_locked(cluster, ClusterCount(1), {.change = Change::kIncrement}));
  Result<void> made = create_block_locked(block);
  if (made.ok() && describes_itself) {
    const uint64_t per_slice = (blocks_.slice_bytes() * 8) >> geometry_.refcount_order();
    const uint64_t index = cluster.v % geometry_.refcounts_per_block();
    auto pin = blocks_.load(block + index / per_slice * blocks_.slice_bytes());
    if (pin.ok()) {
      write_refcount(pin->data(), index % per_slice, geometry_.refcount_order(), 1);
      blocks_.mark_dirty(*pin);
    } else {
      made = std::move(pin).error();
    }
  }
  file_.debug_event(DebugEvent::kRefblockAllocWrite);
  if (made.ok()) made = write_and_flush_blocks_locked();
  if (!made.ok()) {
    blocks_.forget(block, geometry_.cluster_size());
    if (!describes_itself) {
      undo_best_effort_locked(cluster, ClusterCount(1), {.change = Change::kDecrement, .reusable_at_once = true});
    }
    return made;
  }

  // From here on the disk may refer to the block even when an error comes back. It is not given up then: what counts
  // itself stays so, and the other kind keeps its refcount.
  auto stored = slot < entries_.size() ? store_slot_locked(slot, block) : grow_table_locked(slot, block);
  if (!stored.ok()) {
    blocks_.forget(block, geometry_.cluster_size());
    return stored;
  }
  note_used_locked(cluster, ClusterCount(1));
  owner_.refcount_metadata_changed(block, geometry_.cluster_size(), true);
  return {};
}

/// Puts a block of zeros into the cache.
Result<void> RefcountTable::create_block_locked(HostOffset block) {
  for (uint64_t done = 0; done < geometry_.cluster_size(); done += blocks_.slice_bytes()) {
    COIMG_TRY(blocks_.create_zeroed(block + done));
  }
  return {};
}

Result<void> RefcountTable::write_and_flush_blocks_locked() {
  COIMG_TRY(blocks_.write_back());
  return file_.co_flush();
}

Result<void> RefcountTable::store_slot_locked(uint64_t slot, HostOffset block) {
  const be64 stored(block.v);
  file_.debug_event(DebugEvent::kRefblockAllocHookup);
  COIMG_TRY(file_.co_pwrite(table_offset_.v + slot * sizeof stored, std::as_bytes(std::span(&stored, 1))));
  COIMG_TRY(file_.co_flush());
  entries_[slot] = block.v;
  return {};
}

/// Moves to a larger table that has `block` at `slot`, behind everything that blocks describe so far.
Result<void> RefcountTable::grow_table_locked(uint64_t slot, HostOffset block) {
  const uint64_t described = slot + 1;
  file_.debug_event(DebugEvent::kReftableGrow);
  const GrownRefcountTable plan = COIMG_TRY(grow_refcount_table(geometry_, described));
  const uint64_t table_bytes = plan.table_clusters << geometry_.cluster_bits();
  const HostCluster start = plan.first;
  const uint64_t clusters = plan.blocks + plan.table_clusters;
  if (start.v + clusters > kMaxHostOffset >> geometry_.cluster_bits()) {
    return Error(EFBIG, "no room for a larger refcount table");
  }

  std::vector<uint64_t> entries = entries_;
  entries.resize(table_bytes / sizeof(be64), 0);
  entries[slot] = block.v;
  for (uint64_t i = 0; i < plan.blocks; ++i) {
    entries[described + i] = geometry_.host_offset(start + i).v;
  }

  // The blocks count as used what lies in front of them: themselves and the table. Lookups need the new table for that;
  // it is taken back when something fails before the header refers to it.
  std::swap(entries_, entries);
  auto prepare = [&]() coroutine_fn CO_REQUIRES(lock_) -> Result<void> {
    for (uint64_t i = 0; i < plan.blocks; ++i) {
      COIMG_TRY(create_block_locked(geometry_.host_offset(start + i)));
    }
    COIMG_TRY(change_locked(start, ClusterCount(clusters), {.change = Change::kIncrement}));
    file_.debug_event(DebugEvent::kRefblockAllocWriteBlocks);
    COIMG_TRY(write_and_flush_blocks_locked());
    file_.debug_event(DebugEvent::kRefblockAllocWriteTable);
    const AlignedBuffer table = encode_table(entries_);
    COIMG_TRY(file_.co_pwrite(geometry_.host_offset(start + plan.blocks).v, table.span()));
    return file_.co_flush();
  };
  const HostOffset table_offset = geometry_.host_offset(start + plan.blocks);
  Result<void> moved = prepare();
  if (moved.ok()) {
    file_.debug_event(DebugEvent::kRefblockAllocSwitchTable);
    moved = owner_.store_refcount_table_location(table_offset, static_cast<uint32_t>(plan.table_clusters));
    // Whether the header has changed is not known after an error. It must not refer to a table that is not kept up.
    if (!moved.ok() && !owner_.store_refcount_table_location(table_offset_, table_clusters_).ok()) {
      moved = owner_.refcounts_damaged("the header may refer to a refcount table that is out of date");
    }
  }
  if (!moved.ok()) {
    std::swap(entries_, entries);
    blocks_.forget(geometry_.host_offset(start), plan.blocks << geometry_.cluster_bits());
    return std::move(moved).with_context("growing the refcount table");
  }

  const HostOffset old_offset = std::exchange(table_offset_, table_offset);
  const uint32_t old_clusters = std::exchange(table_clusters_, static_cast<uint32_t>(plan.table_clusters));
  owner_.refcount_metadata_changed(geometry_.host_offset(start), clusters << geometry_.cluster_bits(), true);
  owner_.refcount_metadata_changed(old_offset, uint64_t{old_clusters} << geometry_.cluster_bits(), false);
  undo_best_effort_locked(geometry_.host_cluster(old_offset), ClusterCount(old_clusters),
                          {.change = Change::kDecrement, .reusable_at_once = true});
  return {};
}

// --- shrinking -------------------------------------------------------------------------------------------------------

Result<HostCluster> RefcountTable::end_of_used() {
  CoMutexGuard guard(lock_);
  const uint64_t per_block = geometry_.refcounts_per_block();
  for (uint64_t slot = entries_.size(); slot-- > 0;) {
    if (block_offset(slot).v == 0) continue;
    // The windows of a block can only be walked forwards.
    HostCluster end(0);
    const HostCluster block_end((slot + 1) * per_block);
    for (HostCluster cluster(slot * per_block); cluster < block_end;) {
      const Window window = COIMG_TRY(window_locked(cluster));
      for (uint64_t i = window.count; i-- > 0;) {
        if (read_refcount(window.pin.data(), window.index + i, geometry_.refcount_order()) == 0) continue;
        end = cluster + i + 1;
        break;
      }
      cluster += window.count;
    }
    if (end.v != 0) return end;
  }
  return HostCluster(0);
}

/// Whether a block has no refcounts but its own, if that is in it, and those of blocks that are dropped already.
Result<bool> RefcountTable::block_is_empty_locked(uint64_t slot, const ClusterSet& dropped) {
  const uint64_t per_block = geometry_.refcounts_per_block();
  const HostCluster self = geometry_.host_cluster(block_offset(slot));
  HostCluster cluster(slot * per_block);
  const HostCluster end = cluster + per_block;
  while (cluster < end) {
    const Window window = COIMG_TRY(window_locked(cluster));
    const uint64_t window_end = window.index + window.count;
    for (uint64_t i = window.index;; ++i) {
      i = first_used(window.pin.data(), i, window_end, geometry_.refcount_order());
      if (i == window_end) break;
      const HostCluster used = cluster + (i - window.index);
      if (used != self && !dropped.first_overlap(used, ClusterCount(1))) return false;
    }
    cluster += window.count;
  }
  return true;
}

/// Writes those sectors of the table that differ from what is stored, the last one first, with a flush behind each: a
/// block that is counted by another one is gone from disk before that one is.
Result<void> RefcountTable::store_table_locked(std::span<const uint64_t> entries, std::span<const uint64_t> stored) {
  constexpr size_t kPerSector = kSectorSize / sizeof(be64);
  for (size_t begin = entries.size(); begin > 0;) {
    begin -= kPerSector;
    const auto sector = entries.subspan(begin, kPerSector);
    if (std::ranges::equal(sector, stored.subspan(begin, kPerSector))) continue;
    const AlignedBuffer bytes = encode_table(sector);
    file_.debug_event(DebugEvent::kReftableUpdate);
    COIMG_TRY(file_.co_pwrite(table_offset_.v + begin * sizeof(be64), bytes.span())
                  .with_context("writing the refcount table"));
    COIMG_TRY(file_.co_flush());
  }
  return {};
}

Result<void> RefcountTable::drop_empty_blocks() {
  CoMutexGuard guard(lock_);
  std::vector<uint64_t> entries = entries_;
  std::vector<uint64_t> dropped_slots;
  ClusterSet dropped;
  // Downwards, as a block mostly lies in front of what it counts: then what counts the block comes later.
  for (uint64_t slot = entries.size(); slot-- > 0;) {
    if (block_offset(slot).v == 0 || !COIMG_TRY(block_is_empty_locked(slot, dropped))) continue;
    entries[slot] = 0;
    dropped_slots.push_back(slot);
    dropped.insert(geometry_.host_cluster(block_offset(slot)), ClusterCount(1));
  }
  if (dropped_slots.empty()) return {};

  auto stored = store_table_locked(entries, entries_);
  if (!stored.ok()) {
    // The blocks stay in use, so the table on disk must refer to them.
    if (store_table_locked(entries_, entries).ok()) return stored;
    return owner_.refcounts_damaged("the refcount table may lack refcount blocks");
  }
  std::swap(entries_, entries);
  for (const uint64_t slot : dropped_slots) {
    const HostOffset block(entries[slot] & kRefcountTableOffsetMask);
    const HostCluster cluster = geometry_.host_cluster(block);
    blocks_.forget(block, geometry_.cluster_size());
    owner_.refcount_metadata_changed(block, geometry_.cluster_size(), false);
    if (block_offset(slot_of(cluster)).v == 0) continue;  // its refcount has gone with the block that held it
    undo_best_effort_locked(cluster, ClusterCount(1), {.change = Change::kDecrement, .reusable_at_once = true});
  }
  return {};
}

}  // namespace coimg::qcow2
