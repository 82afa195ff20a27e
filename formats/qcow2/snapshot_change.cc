// Taking, applying, deleting and showing internal snapshots.
//
// A snapshot is a copy of the L1 table; everything that both tables reach is counted once for each. Each operation has
// one write that makes it so: of the header, which refers to another snapshot table, or of the active L1 table. Before
// it, references are only added, behind it only taken away: a crash leaks at most.
//
// Format: qcow2, sections "Internal snapshots: Create, Apply, Delete, Reading a snapshot".
#include <fmt/format.h>
#include <spdlog/spdlog.h>

#include <algorithm>
#include <charconv>
#include <chrono>
#include <utility>

#include "block/util/buffer.h"
#include "block/util/endian.h"
#include "block/util/math.h"
#include "formats/qcow2/ordered_reads.h"
#include "formats/qcow2/qcow2.h"

namespace coimg::qcow2 {

namespace {

/// The header fields that say where the snapshot table is; written together, in one sector.
struct DiskSnapshotLocation {
  be32 count;
  be64 offset;
};
static_assert(sizeof(DiskSnapshotLocation) == 12);
static_assert(offsetof(DiskHeaderV2, snapshots_offset) == offsetof(DiskHeaderV2, nb_snapshots) + sizeof(be32));

/// The number that an id begins with; ids are numbers by convention only.
uint64_t number_of(const std::string& id) {
  uint64_t number = 0;
  std::from_chars(id.data(), id.data() + id.size(), number);
  return number;
}

std::string unused_id(std::span<const Snapshot> snapshots) {
  uint64_t highest = 0;
  for (const Snapshot& snapshot : snapshots) highest = std::max(highest, number_of(snapshot.id));
  return std::to_string(highest + 1);
}

AlignedBuffer encode_l1(std::span<const L1Entry> entries, uint64_t bytes) {
  AlignedBuffer table = AlignedBuffer::zeroed(bytes);
  std::ranges::transform(entries, reinterpret_cast<be64*>(table.data()), &L1Entry::raw);
  return table;
}

}  // namespace

// --- the operations --------------------------------------------------------------------------------------------------

Result<void> Qcow2::create_snapshot(const std::string& name) {
  COIMG_TRY(check_usable());
  if (geometry_.external_data()) return Error::from_errno(ENOTSUP);  // the data file would have to keep two versions
  const TrackedRequest everything(in_flight_, 0, kMaxFileOffset, RangeMode::kExclusive);
  CoWriteGuard guard(lock_);
  if (snapshots_.size() >= kMaxSnapshots) return Error(EFBIG, "the image has as many snapshots as it can have");

  using namespace std::chrono;
  const auto now = duration_cast<microseconds>(system_clock::now().time_since_epoch()).count();
  Snapshot snapshot{.l1_size = static_cast<uint32_t>(l1_table_.size()),
                    .id = unused_id(snapshots_),
                    .name = name,
                    .date_sec = static_cast<uint32_t>(now / 1'000'000),
                    .date_nsec = static_cast<uint32_t>(now % 1'000'000 * 1000),
                    .disk_size = virtual_size_,
                    .icount = 0};
  const L1Copy copy = COIMG_TRY(store_l1_copy_locked());
  snapshot.l1_table_offset = copy.offset;

  Result<void> kept = add_references_locked(l1_table_);
  if (kept.ok()) {
    kept = refresh_active_copied_locked();
    if (kept.ok()) {
      std::vector<Snapshot> with_new = snapshots_;
      with_new.push_back(std::move(snapshot));
      kept = store_snapshots_locked(std::move(with_new));
    }
    if (!kept.ok()) take_back_references_locked();
  }
  if (!kept.ok()) {
    refcounts_->free_best_effort(geometry_.host_cluster(copy.offset), copy.clusters);
    return kept;
  }
  note_metadata(copy.offset, copy.clusters.v << geometry_.cluster_bits(), true);
  return load_inactive_l2_locked();
}

Result<void> Qcow2::apply_snapshot(const SnapshotSelector& selector) {
  COIMG_TRY(check_usable());
  const TrackedRequest everything(in_flight_, 0, kMaxFileOffset, RangeMode::kExclusive);
  Snapshot snapshot;
  std::vector<L1Entry> table;
  {
    CoWriteGuard guard(lock_);
    snapshot = snapshots_[COIMG_TRY(find_snapshot_locked(selector))];
    if (!bitmaps_.empty()) return Error(EBUSY, "Device has active dirty bitmaps");
    table = COIMG_TRY(load_snapshot_l1_locked(snapshot));
    COIMG_TRY(check_snapshot_l1_locked(snapshot, table));
  }
  COIMG_TRY(resize_exclusively(snapshot.disk_size));

  CoWriteGuard guard(lock_);
  if (snapshot.l1_size > l1_table_.size()) COIMG_TRY(grow_l1_table_locked(snapshot.l1_size));
  table.resize(l1_table_.size());
  COIMG_TRY(add_references_locked(table));
  Result<void> shared = refresh_copied_locked(table);
  if (shared.ok()) shared = flush_locked();
  if (shared.ok()) {
    shared = store_l1_table_locked(table);
    if (!shared.ok() && !store_l1_table_locked(l1_table_).ok()) {
      return corruption("the L1 table may be a part of the old and a part of the snapshot's", true);
    }
  }
  if (!shared.ok()) {
    drop_references_best_effort_locked(table);
    return shared;
  }
  const std::vector<L1Entry> before = std::exchange(l1_table_, std::move(table));
  reset_overlap_guard();
  for (const L1Entry entry : before) {
    if (entry.has_table()) COIMG_TRY(free_l2_table_locked(entry.l2_table(), freed(options_.discard_snapshots)));
  }
  return refresh_active_copied_locked();
}

Result<void> Qcow2::delete_snapshot(const SnapshotSelector& selector) {
  COIMG_TRY(check_usable());
  const TrackedRequest everything(in_flight_, 0, kMaxFileOffset, RangeMode::kExclusive);
  CoWriteGuard guard(lock_);
  const size_t index = COIMG_TRY(find_snapshot_locked(selector));
  const Snapshot snapshot = snapshots_[index];
  const std::vector<L1Entry> table = COIMG_TRY(load_snapshot_l1_locked(snapshot));
  const Result<void> intact = check_snapshot_l1_locked(snapshot, table);

  std::vector<Snapshot> rest = snapshots_;
  rest.erase(rest.begin() + static_cast<ptrdiff_t>(index));
  COIMG_TRY(store_snapshots_locked(std::move(rest)));

  reset_overlap_guard();
  if (!intact.ok()) {  // what a damaged table counts is not known; a repair finds it
    spdlog::warn("clusters are leaked: {}", intact.error().message());
    return load_inactive_l2_locked();
  }
  for (const L1Entry entry : table) {
    if (entry.has_table()) COIMG_TRY(free_l2_table_locked(entry.l2_table(), freed(options_.discard_snapshots)));
  }
  const ClusterCount clusters(geometry_.clusters_for(snapshot.l1_size * sizeof(be64)));
  if (clusters.v != 0)
    COIMG_TRY(refcounts_->decrement(geometry_.host_cluster(snapshot.l1_table_offset), clusters,
                                    freed(options_.discard_other)));
  COIMG_TRY(load_inactive_l2_locked());
  return refresh_active_copied_locked();
}

/// Only what reading needs changes: the L1 table in memory, and the length.
Result<void> Qcow2::show_snapshot(const SnapshotSelector& selector) {
  COIMG_TRY(check_usable());
  const TrackedRequest everything(in_flight_, 0, kMaxFileOffset, RangeMode::kExclusive);
  CoWriteGuard guard(lock_);
  const Snapshot& snapshot = snapshots_[COIMG_TRY(find_snapshot_locked(selector))];
  l1_table_ = COIMG_TRY(load_snapshot_l1_locked(snapshot));
  virtual_size_ = snapshot.disk_size;
  last_decoded_.reset();
  return {};
}

Result<size_t> Qcow2::find_snapshot_locked(const SnapshotSelector& selector) const {
  for (size_t i = 0; i < snapshots_.size(); ++i) {
    if (selector.matches(snapshots_[i].id, snapshots_[i].name)) return i;
  }
  return Error::from_errno(ENOENT);
}

// --- L1 tables -------------------------------------------------------------------------------------------------------

/// Writes the active L1 table a second time. Crash: a leak.
Result<Qcow2::L1Copy> Qcow2::store_l1_copy_locked() {
  const uint64_t bytes = l1_table_.size() * sizeof(be64);
  const ClusterCount clusters(std::max<uint64_t>(1, geometry_.clusters_for(bytes)));
  const HostCluster first = COIMG_TRY(refcounts_->allocate(clusters));
  const L1Copy copy{.offset = geometry_.host_offset(first), .clusters = clusters};
  const AlignedBuffer table = encode_l1(l1_table_, clusters.v << geometry_.cluster_bits());
  Result<void> written = check_overlap_locked(copy.offset, table.size());
  if (written.ok()) written = file_.co_pwrite(copy.offset.v, table.span());
  if (!written.ok()) {
    refcounts_->free_best_effort(first, clusters);
    return std::move(written).with_context("writing the snapshot's L1 table").error();
  }
  return copy;
}

/// Reads the L1 table of a snapshot, long enough for its disk. Errors: EUCLEAN for a table out of bounds.
Result<std::vector<L1Entry>> Qcow2::load_snapshot_l1_locked(const Snapshot& snapshot) {
  const uint64_t needed = geometry_.l1_needed(snapshot.disk_size);
  const HostOffset offset = snapshot.l1_table_offset;
  if (snapshot.l1_size > kMaxL1Entries || needed > kMaxL1Entries || geometry_.in_cluster(offset.v) != 0 ||
      !range_within(offset.v, snapshot.l1_size * sizeof(be64), kMaxFileOffset)) {
    return Error(EUCLEAN, fmt::format("Snapshot '{}' has an invalid L1 table", snapshot.id))
        .at("snapshot L1 table", offset.v);
  }
  std::vector<be64> stored(snapshot.l1_size);
  COIMG_TRY(read_padded(file_, offset, std::as_writable_bytes(std::span(stored)))
                .with_context("reading the snapshot's L1 table"));
  std::vector<L1Entry> table;
  table.reserve(std::max<uint64_t>(needed, stored.size()));
  for (const be64& entry : stored) table.emplace_back(uint64_t{entry});
  if (table.size() < needed) table.resize(needed);
  return table;
}

/// What becomes the active table, or is freed, must not bring damage with it. Errors: EUCLEAN, for the table or naming
/// its first bad entry.
Result<void> Qcow2::check_snapshot_l1_locked(const Snapshot& snapshot, std::span<const L1Entry> table) const {
  const uint64_t file_bytes = file_.exact_length();
  if (!range_within(snapshot.l1_table_offset.v, snapshot.l1_size * sizeof(be64), file_bytes)) {
    return Error(EUCLEAN, fmt::format("the L1 table of snapshot '{}' lies behind the end of the file", snapshot.id))
        .at("snapshot L1 table", snapshot.l1_table_offset.v);
  }
  for (size_t i = 0; i < table.size(); ++i) {
    const uint64_t l2_table = table[i].l2_table().v;
    if (table[i].raw() == 0 || (table[i].has_table() && geometry_.in_cluster(l2_table) == 0 && l2_table < file_bytes)) {
      continue;
    }
    const uint64_t entry_offset = snapshot.l1_table_offset.v + i * sizeof(be64);
    return Error(EUCLEAN, fmt::format("the L1 table of snapshot '{}' is damaged: its entry {} at {:#x} is {:#x}",
                                      snapshot.id, i, entry_offset, table[i].raw()))
        .at("snapshot L1 table", entry_offset);
  }
  return {};
}

/// Writes a table over the active one, which has the same length. Durable when it returns. After an error the one on
/// disk may be either, or a part of both: everything that they reach must be counted for both.
Result<void> Qcow2::store_l1_table_locked(std::span<const L1Entry> table) {
  const AlignedBuffer bytes = encode_l1(table, table.size() * sizeof(be64));
  COIMG_TRY(file_.co_pwrite(header_.l1_table_offset.v, bytes.span()).with_context("writing the L1 table"));
  return file_.co_flush();
}

// --- references ------------------------------------------------------------------------------------------------------

/// What an L2 table and its entries refer to: the table's own cluster comes last.
Result<DroppedReferences> Qcow2::collect_references_locked(HostOffset table) {
  DroppedReferences references;
  if (geometry_.in_cluster(table.v) != 0) {
    return corruption(fmt::format("L2 table offset {:#x} unaligned", table.v), true);
  }
  for (uint64_t index = 0; index < geometry_.l2_entries();) {
    const L2Slice slice = COIMG_TRY(load_l2_slice_locked(table, index));
    index += slice.entries.size();
    for (size_t i = 0; i < slice.entries.size(); ++i) {
      const L2Entry entry = slice.entries[i];
      if (entry.type() != ClusterType::kCompressed && geometry_.in_cluster(entry.host().v) != 0) {
        return corruption(
            fmt::format("Cluster allocation offset {:#x} unaligned (L2 offset: {:#x})", entry.host().v, table.v), true);
      }
      references.add(geometry_, entry, L2Entry());
    }
  }
  references.add_cluster(geometry_.host_cluster(table));
  return references;
}

/// Adds one reference to all that the table's entries reach, or none. Durable only after a flush.
Result<void> Qcow2::add_references_locked(std::span<const L1Entry> table) {
  for (size_t i = 0; i < table.size(); ++i) {
    if (!table[i].has_table()) continue;
    Result<void> added = add_table_references_locked(table[i].l2_table());
    if (added.ok()) continue;
    drop_references_best_effort_locked(table.first(i));
    return added;
  }
  return {};
}

Result<void> Qcow2::add_table_references_locked(HostOffset l2_table) {
  const DroppedReferences references = COIMG_TRY(collect_references_locked(l2_table));
  const auto& runs = references.runs();
  for (size_t i = 0; i < runs.size(); ++i) {
    Result<void> added = refcounts_->increment(runs[i].first, runs[i].count());
    if (added.ok()) continue;
    while (i-- > 0) refcounts_->free_best_effort(runs[i].first, runs[i].count());
    return added;
  }
  return {};
}

/// The way back of add_references_locked(). What fails is logged and leaks.
void Qcow2::drop_references_best_effort_locked(std::span<const L1Entry> table) {
  for (const L1Entry entry : table) {
    if (!entry.has_table()) continue;
    const auto references = collect_references_locked(entry.l2_table());
    if (!references.ok()) {
      spdlog::warn("clusters are leaked: {}", references.error().message());
      continue;
    }
    for (const ClusterRun& run : references->runs()) refcounts_->free_best_effort(run.first, run.count());
  }
}

/// A snapshot was not made after all: the active table's references are the only ones again.
void Qcow2::take_back_references_locked() {
  drop_references_best_effort_locked(l1_table_);
  const Result<void> refreshed = refresh_active_copied_locked();
  if (!refreshed.ok()) spdlog::warn("clusters stay marked as shared: {}", refreshed.error().message());
}

// --- COPIED ----------------------------------------------------------------------------------------------------------

/// Makes the active L1 table and all that it reaches tell which references are the only ones. Durable when it returns.
Result<void> Qcow2::refresh_active_copied_locked() {
  COIMG_TRY(refresh_copied_locked(l1_table_));
  COIMG_TRY(flush_locked());
  return store_l1_table_locked(l1_table_);
}

/// Sets COPIED in L1 entries and the L2 entries behind them where the refcount is one, and clears it elsewhere. The
/// refcounts reach the disk first.
Result<void> Qcow2::refresh_copied_locked(std::span<L1Entry> table) {
  COIMG_TRY(l2_cache_->write_back());  // refcounts may depend on L2 entries of before
  COIMG_TRY(refcount_cache_->write_back());
  COIMG_TRY(file_.co_flush());
  for (L1Entry& entry : table) {
    if (!entry.has_table()) continue;
    COIMG_TRY(refresh_l2_copied_locked(entry.l2_table()));
    entry = L1Entry::table(entry.l2_table(), COIMG_TRY(is_only_reference(entry.l2_table())));
  }
  return {};
}

Result<void> Qcow2::refresh_l2_copied_locked(HostOffset l2_table) {
  for (uint64_t index = 0; index < geometry_.l2_entries();) {
    const L2Slice slice = COIMG_TRY(load_l2_slice_locked(l2_table, index));
    index += slice.entries.size();
    bool changed = false;
    for (size_t i = 0; i < slice.entries.size(); ++i) {
      const L2Entry entry = slice.entries[i];
      const ClusterType type = entry.type();
      if (type != ClusterType::kNormal && type != ClusterType::kZeroAllocated) continue;
      const bool only = COIMG_TRY(is_only_reference(entry.host()));
      if (only == entry.copied()) continue;
      slice.entries.store(i, entry.with_copied(only));
      changed = true;
    }
    if (changed) l2_cache_->mark_dirty(slice.pin);
  }
  return {};
}

Result<bool> Qcow2::is_only_reference(HostOffset offset) {
  return COIMG_TRY(refcounts_->refcount(geometry_.host_cluster(offset))) == 1;
}

// --- the snapshot table ----------------------------------------------------------------------------------------------

/// Replaces the table: the new one is written elsewhere, then the header refers to it. Durable when it returns.
Result<void> Qcow2::store_snapshots_locked(std::vector<Snapshot> snapshots) {
  const std::vector<std::byte> table = COIMG_TRY(encode_snapshot_table(snapshots));
  const ClusterCount clusters(geometry_.clusters_for(table.size()));
  HostOffset offset;  // an empty table is nowhere
  Result<void> written;
  if (clusters.v != 0) {
    offset = geometry_.host_offset(COIMG_TRY(refcounts_->allocate(clusters)));
    written = write_snapshot_table_locked(offset, table);
  }
  const HostOffset old_offset = header_.snapshots_offset;
  const uint32_t old_count = header_.nb_snapshots;
  if (written.ok()) {
    written = store_snapshot_location_locked(offset, static_cast<uint32_t>(snapshots.size()));
    // Which table the header refers to is not known then. It must not be one whose clusters are free.
    if (!written.ok() && !store_snapshot_location_locked(old_offset, old_count).ok()) {
      return corruption("the header may refer to a snapshot table that is out of date", true);
    }
  }
  if (!written.ok()) {
    if (clusters.v != 0) refcounts_->free_best_effort(geometry_.host_cluster(offset), clusters);
    return written;
  }

  const ClusterCount old_clusters(geometry_.clusters_for(stored_table_bytes(snapshots_)));
  if (clusters.v != 0) note_metadata(offset, clusters.v << geometry_.cluster_bits(), true);
  if (old_clusters.v != 0) {
    note_metadata(old_offset, old_clusters.v << geometry_.cluster_bits(), false);
    refcounts_->free_best_effort(geometry_.host_cluster(old_offset), old_clusters);
  }
  for (Snapshot& snapshot : snapshots) {
    snapshot.extra_bytes = kKnownSnapshotExtraBytes + static_cast<uint32_t>(snapshot.unknown_extra.size());
  }
  snapshots_ = std::move(snapshots);
  return {};
}

Result<void> Qcow2::write_snapshot_table_locked(HostOffset offset, std::span<const std::byte> table) {
  COIMG_TRY(check_overlap_locked(offset, table.size()));
  COIMG_TRY(file_.co_pwrite(offset.v, table).with_context("writing the snapshot table"));
  return flush_locked();
}

/// Durable when it returns.
Result<void> Qcow2::store_snapshot_location_locked(HostOffset offset, uint32_t count) {
  const DiskSnapshotLocation stored{.count = count, .offset = offset.v};
  COIMG_TRY(file_.co_pwrite(offsetof(DiskHeaderV2, nb_snapshots), std::as_bytes(std::span(&stored, 1)))
                .with_context("storing the place of the snapshot table"));
  COIMG_TRY(file_.co_flush());
  header_.snapshots_offset = offset;
  header_.nb_snapshots = count;
  return {};
}

}  // namespace coimg::qcow2
