#include "formats/qcow2/repair.h"

#include <fmt/format.h>

#include <algorithm>

#include "formats/qcow2/ordered_reads.h"
#include "formats/qcow2/qcow2.h"

namespace coimg::qcow2 {
namespace {

constexpr unsigned kTablesInFlight = 8;

}  // namespace

Repairer::Repairer(Qcow2& image, const CheckOptions& options)
    : image_(image),
      reporter_(*options.reporter),
      mode_(options.repair),
      checker_(std::make_unique<Checker>(image, reporter_, mode_ == RepairMode::kAll)) {
  if (mode_ == RepairMode::kNone) checker_->set_should_stop(options.should_stop);
}

Result<CheckResult> Repairer::run() {
  const Result<void> outcome = repair();
  // Also after an error: what the caches hold may be older than the file.
  if (changed_) COIMG_TRY(forget_caches());
  if (!outcome.ok()) return outcome.error();
  return checker_->result();
}

Result<void> Repairer::repair() {
  COIMG_TRY(checker_->count_references());
  if (mode_ == RepairMode::kAll && !checker_->io_failed()) {
    COIMG_TRY(mend_misplaced_zeroes());
    COIMG_TRY(mend_bitmap_tables());
  }
  COIMG_TRY(checker_->compare());
  const bool may_repair = mode_ != RepairMode::kNone && !checker_->io_failed();
  if (may_repair) COIMG_TRY(repair_refcounts());
  if (checker_->copied_suspect() && !checker_->io_failed()) COIMG_TRY(check_copied());
  if (!may_repair || checker_->io_failed()) return {};
  if (mode_ == RepairMode::kAll) COIMG_TRY(repair_with_new_clusters());
  return clear_marks();
}

/// What needs clusters to be allocated, so that all refcounts have to be right. What is left besides does no harm then.
Result<void> Repairer::repair_with_new_clusters() {
  if (!checker_->refcounts_match() || checker_->result().check_errors != 0) return {};
  const uint64_t snapshots = checker_->snapshot_defects(), bitmaps = checker_->lost_bitmap_tables();
  if (snapshots != 0 && checker_->snapshot_table_counted()) COIMG_TRY(complete_snapshot_table());
  if (bitmaps != 0) COIMG_TRY(replace_lost_bitmap_tables());
  return {};
}

Result<void> Repairer::repair_refcounts() {
  if (checker_->needs_rebuild()) {
    if (mode_ != RepairMode::kAll) {
      report("ERROR need to rebuild refcount structures");
      return Error::from_errno(EIO);
    }
    return rebuild();
  }
  const CheckResult& result = checker_->result();
  if (mode_ == RepairMode::kAll && !checker_->blocks_outside().empty()) COIMG_TRY(drop_blocks_outside());
  if (result.leaks == 0 && result.corruptions == 0) return {};
  if (result.leaks != 0 && checker_->lost_references()) {
    report("Leaked clusters are kept: a table that cannot be followed may have referred to them");
  }
  changed_ = true;
  COIMG_TRY(checker_->correct_refcounts(mode_));
  return image_.file_.co_flush().with_context("flushing corrected refcounts");
}

// --- single entries -------------------------------------------------------------------------------------------------

/// Allocated zero clusters with an impossible offset become plain zero clusters: the guest sees the same, and the
/// offset was never used.
Result<void> Repairer::mend_misplaced_zeroes() {
  const Geometry geometry = image_.geometry_;
  std::vector<std::byte> table(geometry.cluster_size());
  for (const L2Reference& reference : checker_->l2_tables()) {
    if (!reference.has_misplaced_zero) continue;
    if (checker_->overlaps_metadata(reference.offset, table.size())) {
      report(fmt::format("ERROR L2 table at offset {:#x} overlaps other metadata; not repaired", reference.offset.v));
      continue;
    }
    COIMG_TRY(read_padded(image_.file_, reference.offset, table));
    const L2Entries entries(table, geometry);
    uint64_t mended = 0;
    for (size_t i = 0; i < entries.size(); ++i) {
      const L2Entry entry = entries[i];
      if (!entry.has_empty_place(geometry) || is_aligned(entry.host().v, geometry.cluster_size())) continue;
      entries.store(i, entry.without_place(geometry));
      mended += reference.active + reference.inactive;
    }
    changed_ = true;
    COIMG_TRY(image_.file_.co_pwrite(reference.offset.v, table).with_context("storing a repaired L2 table"));
    checker_->result().corruptions -= mended;
    checker_->result().corruptions_fixed += mended;
  }
  return {};
}

/// Blocks behind the end of the file say that their clusters are free, as no block at all does.
Result<void> Repairer::drop_blocks_outside() {
  image_.lock_.assert_wrlocked();
  std::vector<uint64_t>& table = checker_->refcount_table();
  const std::vector<uint64_t>& outside = checker_->blocks_outside();  // in ascending order
  for (const uint64_t index : outside) table[index] = 0;
  const std::vector<be64> stored(table.begin() + static_cast<std::ptrdiff_t>(outside.front()),
                                 table.begin() + static_cast<std::ptrdiff_t>(outside.back() + 1));
  const uint64_t offset = image_.header_.refcount_table_offset.v + outside.front() * 8;
  if (checker_->overlaps_metadata(HostOffset(offset), stored.size() * 8, Checker::Metadata::kRefcountTable)) {
    report("ERROR the refcount table overlaps other metadata; not repaired");
    return {};
  }
  changed_ = true;
  COIMG_TRY(
      image_.file_.co_pwrite(offset, std::as_bytes(std::span(stored))).with_context("storing the refcount table"));
  checker_->result().corruptions -= outside.size();
  checker_->result().corruptions_fixed += outside.size();
  checker_->forget_blocks_outside();
  return {};
}

// --- COPIED ---------------------------------------------------------------------------------------------------------

/// Compares the COPIED flags of the active L1 table and its L2 tables with the stored refcounts.
Result<void> Repairer::check_copied() {
  image_.lock_.assert_wrlocked();
  const CheckResult& result = checker_->result();
  const bool clean = result.corruptions == 0 && result.leaks == 0 && result.check_errors == 0;
  const bool mend = mode_ == RepairMode::kAll || (mode_ == RepairMode::kLeaks && clean);
  COIMG_TRY(checker_->replace_counts_by_stored());

  const std::vector<L2Reference>& tables = checker_->l2_tables();  // the active ones first, in order of L1 index
  uint64_t next = 0, l1_done = 0;
  const auto next_table = [&]() -> std::optional<OrderedRead> {
    if (next == tables.size() || tables[next].active == 0) return std::nullopt;
    const uint64_t index = next++;
    return OrderedRead{tables[index].offset, image_.geometry_.cluster_size(), index};
  };
  const auto check_table = [&](const OrderedRead& read, const Result<void>& status, std::span<std::byte> bytes)
                               coroutine_fn -> Result<void> {
    const L2Reference& table = tables[read.tag];
    COIMG_TRY(check_copied_l1(l1_done, table.order + 1, mend));
    l1_done = table.order + 1;
    if (!status.ok()) return status.error().with_context(fmt::format("reading the L2 table at {:#x}", read.offset.v));
    return check_copied_l2(table, bytes, mend);
  };
  COIMG_TRY(read_in_order(image_.file_, kTablesInFlight, image_.geometry_.cluster_size(), next_table, check_table));
  return check_copied_l1(l1_done, image_.l1_table_.size(), mend);
}

/// Reports a wrong flag; returns whether it is to be corrected.
bool Repairer::note_wrong_copied(bool mend, std::string_view words) {
  report(fmt::format("{} OFLAG_COPIED {}", mend ? "Repairing" : "ERROR", words));
  ++(mend ? checker_->result().corruptions_fixed : checker_->result().corruptions);
  return mend;
}

Result<void> Repairer::check_copied_l1(uint64_t first, uint64_t end, bool mend) {
  image_.lock_.assert_wrlocked();
  const Geometry& geometry = image_.geometry_;
  std::vector<L1Entry>& table = image_.l1_table_;
  const uint64_t table_offset = image_.header_.l1_table_offset.v;
  bool changed = false;
  for (uint64_t i = first; i < end; ++i) {
    const L1Entry entry = table[i];
    if (entry.raw() == 0 || !is_aligned(entry.l2_table().v, geometry.cluster_size())) continue;
    const uint64_t refcount =
        entry.has_table() ? COIMG_TRY(checker_->stored_refcount(geometry.host_cluster(entry.l2_table()))) : 0;
    if (entry.copied() == (refcount == 1)) continue;
    if (!note_wrong_copied(
            mend, fmt::format("L2 cluster: l1_index={} l1_entry={:x} refcount={}", i, entry.raw(), refcount))) {
      continue;
    }
    table[i] = L1Entry(entry.raw() ^ kEntryCopied);
    changed = true;
  }
  if (!changed) return {};
  if (checker_->overlaps_metadata(HostOffset(table_offset), table.size() * 8, Checker::Metadata::kActiveL1)) {
    return Error(EUCLEAN, "the L1 table overlaps other metadata and cannot be repaired");
  }
  std::vector<be64> stored;
  for (uint64_t i = first; i < end; ++i) stored.emplace_back(table[i].raw());
  changed_ = true;
  return image_.file_.co_pwrite(table_offset + first * 8, std::as_bytes(std::span(stored)))
      .with_context("storing the repaired L1 table");
}

Result<void> Repairer::check_copied_l2(const L2Reference& table, std::span<std::byte> bytes, bool mend) {
  image_.lock_.assert_wrlocked();
  const Geometry& geometry = image_.geometry_;
  const bool external_data = (image_.header_.incompatible_features & kExternalDataFile) != 0;
  const L2Entries entries(bytes, geometry);
  bool changed = false;
  for (size_t i = 0; i < entries.size(); ++i) {
    const L2Entry entry = entries[i];
    if (entry.type() != ClusterType::kNormal && entry.type() != ClusterType::kZeroAllocated) continue;
    const uint64_t refcount =
        external_data ? 1 : COIMG_TRY(checker_->stored_refcount(geometry.host_cluster(entry.host())));
    if (entry.copied() == (refcount == 1)) continue;
    if (!note_wrong_copied(mend, fmt::format("data cluster: l2_entry={:x} refcount={}", entry.raw(), refcount)))
      continue;
    entries.store(i, entry.with_copied(refcount == 1));
    changed = true;
  }
  if (!changed) return {};
  if (checker_->overlaps_metadata(table.offset, bytes.size())) {
    return Error(EUCLEAN, fmt::format("the L2 table at offset {:#x} overlaps other metadata and cannot be repaired",
                                      table.offset.v));
  }
  changed_ = true;
  return image_.file_.co_pwrite(table.offset.v, bytes).with_context("storing a repaired L2 table");
}

// --- the end --------------------------------------------------------------------------------------------------------

/// Clears the dirty and the corrupt bit of an image without corruptions, once everything else is on disk.
Result<void> Repairer::clear_marks() {
  image_.lock_.assert_wrlocked();
  const CheckResult& result = checker_->result();
  if (changed_) COIMG_TRY(image_.file_.co_flush().with_context("flushing the repairs"));
  if (result.corruptions != 0 || result.check_errors != 0) return {};
  const uint64_t features = image_.header_.incompatible_features;
  const uint64_t cleared = features & ~uint64_t{kDirty | kCorrupt};
  if (cleared == features) return {};
  return image_.store_incompatible_features_locked(cleared);
}

/// Reads the refcount table again, and lets the caches drop everything: the file has changed below them.
Result<void> Repairer::forget_caches() {
  image_.lock_.assert_wrlocked();
  image_.l2_cache_->trim();
  image_.refcount_cache_->trim();
  return image_.refcounts_->load(image_.header_.refcount_table_offset, image_.header_.refcount_table_clusters)
      .with_context("reading the repaired refcount table");
}

}  // namespace coimg::qcow2
