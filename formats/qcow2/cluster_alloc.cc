// The write side of the mapping: L2 tables that may be changed, new clusters, and linking them.
//
// Order on disk, kept by the dependencies between the caches: refcount + 1 and the data before the L2 entry, the L2
// entry before refcount - 1. L1 entries are written at once, between flushes.
//
// Format: qcow2, sections "COPIED flag", "Write path and crash safety: Dependencies, Plain write".
#include "formats/qcow2/cluster_alloc.h"

#include <fmt/format.h>
#include <spdlog/spdlog.h>

#include <algorithm>
#include <cassert>
#include <cstring>

#include "block/util/endian.h"
#include "block/util/math.h"
#include "formats/qcow2/qcow2.h"

namespace coimg::qcow2 {

void WritePlan::append(const Geometry& geometry, WriteRun run) {
  if (!runs.empty()) {
    WriteRun& last = runs.back();
    const uint64_t bytes = last.clusters << geometry.cluster_bits();
    assert(run.guest == last.guest + bytes);
    if (run.host == last.host + bytes && run.fresh == last.fresh && run.needs_link == last.needs_link) {
      last.clusters += run.clusters;
      return;
    }
  }
  runs.push_back(run);
}

SubclusterMap WritePlan::map_after(const Geometry& geometry, GuestOffset cluster, L2Entry old) const {
  if (!geometry.extended_l2()) return SubclusterMap::all_stored();
  const GuestOffset end = cluster + geometry.cluster_size();
  const uint64_t unit = geometry.state_unit();
  const uint64_t from = std::max(stored_from, cluster) - cluster;
  const uint64_t to = std::min(stored_to, end) - cluster;
  const uint32_t mask =
      SubclusterMap::mask(static_cast<uint32_t>(from / unit), static_cast<uint32_t>(div_ceil(to, unit)));
  return old.map().with_stored(mask);
}

void DroppedReferences::add(const Geometry& geometry, L2Entry old, L2Entry replacement) {
  if (geometry.external_data()) return;
  ClusterRun run;
  switch (old.type()) {
    case ClusterType::kUnallocated:
    case ClusterType::kZeroPlain:
      return;
    case ClusterType::kNormal:
    case ClusterType::kZeroAllocated:
      if (replacement.type() != ClusterType::kCompressed && replacement.host() == old.host()) return;
      run.first = geometry.host_cluster(old.host());
      run.end = run.first + 1;
      // Clusters that were written in a row are mostly freed in a row.
      if (!runs_.empty() && runs_.back().end == run.first) {
        runs_.back().end = run.end;
        return;
      }
      break;
    case ClusterType::kCompressed: {
      const CompressedRange range = old.compressed_range(geometry);
      run.first = geometry.host_cluster(range.offset);
      run.end = geometry.host_cluster(range.offset + (range.bytes - 1)) + 1;
      break;
    }
  }
  runs_.push_back(run);
}

// --- L2 tables -----------------------------------------------------------------------------------------------------

Result<HostOffset> Qcow2::ensure_l2_table_locked(GuestOffset offset) {
  const uint64_t index = geometry_.l1_index(offset);
  if (index >= l1_table_.size()) {
    return Error(EFBIG, fmt::format("the L1 table does not reach to guest offset {:#x}", offset.v));
  }
  const L1Entry old = l1_table_[index];
  if (geometry_.in_cluster(old.l2_table().v) != 0) {
    return corruption(fmt::format("L2 table offset {:#x} unaligned (L1 index: {:#x})", old.l2_table().v, index), true);
  }
  if (old.copied() && !old.has_table()) {
    return corruption(fmt::format("L1 entry {:#x} is marked as in use without an L2 table", index), true);
  }
  if (old.copied()) return old.l2_table();

  const HostCluster cluster = COIMG_TRY(refcounts_->allocate(ClusterCount(1)).with_context("allocating an L2 table"));
  const HostOffset table = geometry_.host_offset(cluster);
  Result<void> made = check_overlap_locked(table, geometry_.cluster_size());
  if (made.ok()) made = fill_l2_table_locked(table, old);
  if (!made.ok()) {
    l2_cache_->forget(table, geometry_.cluster_size());
    refcounts_->free_best_effort(cluster, ClusterCount(1));
    return std::move(made).error();
  }
  // After an error the entry may be on disk or not: the new table stays allocated, and the old one in use.
  COIMG_TRY(store_l1_entry_locked(index, L1Entry::table(table, true)));
  note_metadata(table, geometry_.cluster_size(), true);
  if (old.has_table()) {
    // The L1 table no longer refers to the old table only when that is durable.
    COIMG_TRY(file_.co_flush());
    l2_cache_->forget(old.l2_table(), geometry_.cluster_size());
    COIMG_TRY(refcounts_->decrement(geometry_.host_cluster(old.l2_table()), ClusterCount(1)));
  }
  return table;
}

/// Makes the content of a new L2 table durable: zeros, or a copy of the table that is shared with snapshots.
Result<void> Qcow2::fill_l2_table_locked(HostOffset table, L1Entry copy_from) {
  const size_t slice_bytes = l2_cache_->slice_bytes();
  if (copy_from.has_table()) file_.debug_event(DebugEvent::kL2AllocCowRead);
  for (uint64_t done = 0; done < geometry_.cluster_size(); done += slice_bytes) {
    const auto target = COIMG_TRY(l2_cache_->create_zeroed(table + done));
    if (!copy_from.has_table()) continue;
    const auto source = COIMG_TRY(l2_cache_->load(copy_from.l2_table() + done));
    std::memcpy(target.data(), source.data(), slice_bytes);
  }
  COIMG_TRY(l2_cache_->depend_on(*refcount_cache_));
  file_.debug_event(DebugEvent::kL2AllocWrite);
  COIMG_TRY(l2_cache_->write_back());
  return file_.co_flush();
}

Result<void> Qcow2::store_l1_entry_locked(uint64_t index, L1Entry entry) {
  const be64 stored(entry.raw());
  file_.debug_event(DebugEvent::kL1Update);
  COIMG_TRY(file_.co_pwrite(header_.l1_table_offset.v + index * sizeof stored, std::as_bytes(std::span(&stored, 1)))
                .with_context(fmt::format("writing L1 entry {}", index)));
  l1_table_[index] = entry;
  return {};
}

// --- L2 entries ----------------------------------------------------------------------------------------------------

Result<uint64_t> Qcow2::update_entries_locked(GuestOffset first, uint64_t clusters, const EntryUpdate& update,
                                              DroppedReferences& dropped) {
  const HostOffset table = COIMG_TRY(ensure_l2_table_locked(first));
  const L2Slice slice = COIMG_TRY(load_l2_slice_locked(table, geometry_.l2_index(first)));
  const uint64_t count = std::min<uint64_t>(clusters, slice.entries.size() - slice.index);
  const L2Entries entries = slice.entries.part(slice.index, count);
  for (uint64_t i = 0; i < count; ++i) {
    COIMG_TRY(check_entry_locked(first + (i << geometry_.cluster_bits()), entries[i]));
  }

  // What the new entries refer to has to be on disk first: the refcounts of new clusters, and the data. Entries that
  // only let go of clusters wait for nothing.
  bool new_clusters = false, new_data = false;
  for (uint64_t i = 0; i < count; ++i) {
    const L2Entry old = entries[i];
    const L2Entry replacement = update(i, old);
    const ClusterType type = replacement.type();
    if (entries.same(replacement, old) || (type != ClusterType::kNormal && type != ClusterType::kCompressed)) continue;
    new_data = true;
    if (type == ClusterType::kCompressed || replacement.host() != old.host()) new_clusters = true;
  }
  if (new_clusters) COIMG_TRY(order_refcounts_locked());
  if (new_data) l2_cache_->depend_on_data();

  bool changed = false;  // from here on nothing yields
  for (uint64_t i = 0; i < count; ++i) {
    const L2Entry old = entries[i];
    const L2Entry replacement = update(i, old);
    if (entries.same(replacement, old)) continue;
    entries.store(i, replacement);
    dropped.add(geometry_, old, replacement);
    changed = true;
  }
  if (changed) l2_cache_->mark_dirty(slice.pin);
  return count;
}

Result<void> Qcow2::order_refcounts_locked() {
  return refcounts_are_lazy_locked() ? mark_dirty_locked() : l2_cache_->depend_on(*refcount_cache_);
}

Result<void> Qcow2::drop_references(const DroppedReferences& dropped, FreedSpace space) {
  if (dropped.empty()) return {};
  COIMG_TRY(refcount_cache_->depend_on(*l2_cache_));
  const HostCluster file_end(geometry_.clusters_for(file_.length()));
  for (const ClusterRun& run : dropped.runs()) {
    const HostCluster present_end = std::clamp(file_end, run.first, run.end);
    if (present_end > run.first) {
      COIMG_TRY(refcounts_->decrement(run.first, ClusterCount(present_end - run.first), space)
                    .with_context("freeing replaced clusters"));
    }
    // Behind the end of the file lie clusters that were allocated and never written, which count, and the clusters of
    // damaged entries, which may not: those are replaced without a word.
    for (HostCluster absent = present_end; absent < run.end; ++absent) {
      if (COIMG_TRY(refcounts_->refcount(absent)) == 0) continue;
      COIMG_TRY(refcounts_->decrement(absent, ClusterCount(1), space).with_context("freeing replaced clusters"));
    }
  }
  return {};
}

// --- new clusters ----------------------------------------------------------------------------------------------------

Result<void> Qcow2::allocate_runs_locked(GuestOffset first, uint64_t clusters, WritePlan& plan) {
  if (geometry_.external_data()) {
    if (clusters == 0) return {};
    plan.append(geometry_,
                {.guest = first, .clusters = clusters, .host = HostOffset(first.v), .fresh = true, .needs_link = true});
    return {};
  }
  // A longer run than one refcount block describes might never fit between two of them.
  const uint64_t longest = geometry_.refcounts_per_block();
  while (clusters > 0) {
    const ClusterCount wanted(std::min(clusters, longest));
    ClusterRun run;
    if (!plan.runs.empty()) {  // behind the previous run, so that both can be written at once
      const WriteRun& last = plan.runs.back();
      run.first = geometry_.host_cluster(last.host) + last.clusters;
      run.end = run.first + COIMG_TRY(refcounts_->allocate_at(run.first, wanted)).v;
    }
    if (run.count().v == 0) {
      run.first = COIMG_TRY(refcounts_->allocate(wanted));
      run.end = run.first + wanted.v;
    }
    const WriteRun fresh{.guest = first,
                         .clusters = run.count().v,
                         .host = geometry_.host_offset(run.first),
                         .fresh = true,
                         .needs_link = true};
    const uint64_t bytes = fresh.clusters << geometry_.cluster_bits();
    auto checked = check_overlap_locked(fresh.host, bytes);
    if (!checked.ok()) {
      refcounts_->free_best_effort(run.first, run.count());
      return checked;
    }
    plan.append(geometry_, fresh);
    first += bytes;
    clusters -= fresh.clusters;
  }
  return {};
}

void Qcow2::abandon_plan(const WritePlan& plan) {
  if (geometry_.external_data()) return;
  for (const WriteRun& run : plan.runs) {
    if (run.fresh && run.clusters != 0) {
      refcounts_->free_best_effort(geometry_.host_cluster(run.host), ClusterCount(run.clusters));
    }
  }
}

Result<void> Qcow2::link_plan_locked(WritePlan& plan, DroppedReferences& dropped) {
  for (WriteRun& run : plan.runs) {
    while (run.needs_link && run.clusters > 0) {
      const HostOffset host = run.host;
      const uint64_t linked = COIMG_TRY(update_entries_locked(
          run.guest, run.clusters,
          [&](uint64_t i, L2Entry old) {
            const uint64_t distance = i << geometry_.cluster_bits();
            return L2Entry::normal(host + distance).with_map(plan.map_after(geometry_, run.guest + distance, old));
          },
          dropped));
      run.guest += linked << geometry_.cluster_bits();
      run.host += linked << geometry_.cluster_bits();
      run.clusters -= linked;
    }
  }
  return {};
}

}  // namespace coimg::qcow2
