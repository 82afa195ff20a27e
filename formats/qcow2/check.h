// Checker: counts every reference to every host cluster and compares with the stored refcounts. It only reads.
//
// Three files: check.cc drives, and counts what is not an L1 or L2 table; check_tables.cc walks L1 and L2 tables;
// check_refcounts.cc looks at the refcount table and its blocks. Repairer (repair.h) acts upon what is found.
//
// Each table is read once, several at a time, and an L2 table that many L1 tables share is walked once for all of
// them. Whether COPIED flags are right is decided from two marks in each counter; only when they say that something is
// wrong are the active tables read a second time, to name the entries.
//
// Format: qcow2, sections "Check and repair", "Validation table: Tables and entries".
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <string_view>
#include <vector>

#include "block/driver.h"
#include "block/util/result.h"
#include "formats/qcow2/bitmap.h"
#include "formats/qcow2/cluster_counts.h"
#include "formats/qcow2/format.h"
#include "formats/qcow2/header.h"
#include "formats/qcow2/snapshot.h"

namespace coimg::qcow2 {

class Qcow2;

/// Drops all findings.
class SilentReporter final : public CheckReporter {
 public:
  void finding(std::string_view line) override { (void)line; }
};

/// An L2 table and how often L1 tables refer to it. With small clusters there are many of them.
struct L2Reference {
  HostOffset offset;
  uint64_t inactive = 0;                ///< references from the L1 tables of snapshots
  uint32_t active : 24 = 0;             ///< from the active L1 table
  uint32_t marks : 8 = 0;               ///< of those references: whether they had COPIED set
  uint32_t order : 31 = 0;              ///< the first active L1 index; those of snapshots come behind
  uint32_t has_misplaced_zero : 1 = 0;  ///< holds allocated zero entries whose offset is not aligned, to be repaired
};
static_assert(sizeof(L2Reference) == 24);
static_assert(kMaxL1Entries < 1u << 24);

/// A bitmap table with entries that refer to nothing.
struct DamagedBitmapTable {
  HostOffset offset;
  uint32_t entries = 0;
  uint64_t times = 0;     ///< bitmaps that have this table
  uint64_t findings = 0;  ///< as they were counted
};

/// Who uses which cluster, and what is wrong. Works on the file below the image, so that caches must be written back
/// before, and nobody else may use the image meanwhile: the caller holds Qcow2::lock_ exclusively.
class Checker {
 public:
  /// With `repair_entries`, L2 entries that can be repaired are reported and counted as if they already were; the
  /// caller repairs them.
  Checker(Qcow2& image, CheckReporter& reporter, bool repair_entries);

  /// Counts all references. Errors: EFBIG for a file of 2^31 clusters or more, or too many bitmap tables; what a
  /// snapshot table or bitmap directory that does not parse gives. Tables that cannot be read are findings (check
  /// errors), not errors.
  Result<void> count_references() coroutine_fn;

  /// Compares the counts with the stored refcounts of all clusters of the file, and reports each difference.
  Result<void> compare() coroutine_fn;

  /// compare() again, storing what `mode` allows to correct: too high refcounts, with kAll too low ones also. Call it
  /// only when nothing needs a rebuild. Refcounts stay too high where references were lost. Crash: single refcounts are
  /// corrected or not.
  Result<void> correct_refcounts(RepairMode mode) coroutine_fn;

  /// Raises the counts to the stored refcounts where those are higher (a part of the references is unknown), or
  /// replaces them.
  Result<void> raise_counts_to_stored() coroutine_fn;
  Result<void> replace_counts_by_stored() coroutine_fn;

  /// After replace_counts_by_stored(): the stored refcount, also of clusters beyond the end of the file.
  Result<uint64_t> stored_refcount(HostCluster cluster) coroutine_fn;

  /// What a range of metadata is for; only what a repair writes in place is told apart.
  enum class Metadata { kOther, kActiveL1, kRefcountTable };

  /// Whether [offset, offset + bytes) touches metadata other than L2 tables and `own`: nothing may be written there.
  [[nodiscard]] bool overlaps_metadata(HostOffset offset, uint64_t bytes,
                                       std::optional<Metadata> own = std::nullopt) const;

  /// After count_references(): whether the clusters that [offset, offset + bytes) touches have `times` references.
  [[nodiscard]] bool is_used_only_for(HostOffset offset, uint64_t bytes, uint64_t times) const;

  /// Whether a bitmap table may have the entry, and what it refers to is there.
  [[nodiscard]] bool is_sound(BitmapTableEntry entry) const {
    return entry.valid(geometry_) && entry.cluster().v < file_bytes_;
  }

  void set_reporter(CheckReporter& reporter) { reporter_ = &reporter; }
  /// Asked between tables: count_references() and compare() end with ECANCELED then.
  void set_should_stop(std::function<bool()> should_stop) { should_stop_ = std::move(should_stop); }
  [[nodiscard]] CheckResult& result() { return result_; }
  [[nodiscard]] ClusterCounts& counts() { return *counts_; }
  [[nodiscard]] std::vector<L2Reference>& l2_tables() { return l2_tables_; }
  /// Raw entries, of the whole table on disk.
  [[nodiscard]] std::vector<uint64_t>& refcount_table() { return refcount_table_; }
  [[nodiscard]] const std::vector<uint64_t>& blocks_outside() const { return blocks_outside_; }
  /// Clusters at or behind this one are neither in the file nor in use.
  [[nodiscard]] HostCluster end_of_use() const { return HostCluster(std::max(file_clusters_, touched_end_)); }

  /// Refcounts cannot be corrected in place.
  [[nodiscard]] bool needs_rebuild() const { return needs_rebuild_; }
  /// Reading failed: what is not counted may still be in use, so nothing may be repaired.
  [[nodiscard]] bool io_failed() const { return io_failed_; }
  /// A table could not be followed: what it refers to is not counted, so that refcounts must not be lowered.
  [[nodiscard]] bool lost_references() const { return lost_references_; }
  /// Some COPIED flag may be wrong.
  [[nodiscard]] bool copied_suspect() const { return copied_suspect_ && active_l1_counted_; }
  /// No cluster in use has a refcount that is too low, or one that could not be counted. Tables that are not followed
  /// aside.
  [[nodiscard]] bool refcounts_match() const { return low_refcounts_ == 0 && !overflowed_ && blocks_outside_.empty(); }
  void forget_blocks_outside() { blocks_outside_.clear(); }
  /// Entries of the snapshot table without the fields that version 3 requires, and those that break a limit.
  [[nodiscard]] uint64_t snapshot_defects() const { return snapshot_defects_; }
  /// The snapshot table is in the file, so that its clusters can be freed.
  [[nodiscard]] bool snapshot_table_counted() const { return snapshot_table_counted_; }
  /// With `repair_entries`: bitmap tables to be mended, and the number of bitmaps whose table is not in the file.
  [[nodiscard]] const std::vector<DamagedBitmapTable>& damaged_bitmap_tables() const { return damaged_bitmap_tables_; }
  [[nodiscard]] uint64_t lost_bitmap_tables() const { return lost_bitmap_tables_; }

 private:
  [[nodiscard]] Result<void> check_not_stopped() const {
    if (should_stop_ && should_stop_()) return Error::from_errno(ECANCELED);
    return {};
  }
  struct MetadataExtent {
    uint64_t offset = 0, end = 0;
    Metadata kind = Metadata::kOther;
  };
  enum class BlockState { kAbsent, kUsable, kUnaligned, kUnreachable };
  /// What a walk over refcounts does about a difference: a new value to store, or nothing.
  using OnDifference = std::function<std::optional<uint64_t>(HostCluster cluster, uint64_t stored, uint64_t counted)>;
  struct TableStatistics {
    uint64_t allocated = 0, compressed = 0, fragmented = 0;
    uint64_t next_offset = 0;  ///< where the next cluster would be contiguous; 0 before the first
  };

  // --- check.cc
  void report(std::string_view line) { reporter_->finding(line); }
  Result<void> prepare() coroutine_fn;
  bool add_region(HostOffset offset, uint64_t bytes, uint64_t times = 1, uint8_t marks = 0);
  bool accept_region(HostOffset offset, uint64_t bytes, uint64_t times, bool active);
  void add_cluster(HostCluster cluster, uint64_t times, uint8_t marks) {
    if (const uint64_t excess = counts_->add(cluster, times, marks)) [[unlikely]]
      report_overflow(cluster, excess);
  }
  void add_clusters(HostCluster first, uint64_t count, uint64_t times, uint8_t marks);
  void report_overflow(HostCluster cluster, uint64_t excess);
  void reserve_beyond_end(HostOffset offset, uint64_t end);
  bool add_metadata(HostOffset offset, uint64_t bytes, uint64_t times = 1, Metadata kind = Metadata::kOther,
                    uint8_t marks = 0);
  Result<void> count_snapshots() coroutine_fn;
  Result<void> report_oversized_snapshots(const SnapshotTable& table);
  Result<void> count_bitmaps() coroutine_fn;
  void note_lost_bitmap_table(const BitmapEntry& bitmap, uint64_t times);
  void count_bitmap_table(const BitmapEntry& bitmap, std::span<const std::byte> table, uint64_t times);
  void count_bitmap_data(HostOffset cluster, uint64_t times);
  void report_unreadable(std::string_view what, HostOffset offset, const Error& error);

  // --- check_tables.cc
  void count_active_l1();
  Result<void> count_snapshot_l1(const Snapshot& snapshot, uint64_t times) coroutine_fn;
  void count_l1_entry(L1Entry entry, uint64_t index, uint64_t times, bool active);
  void merge_new_l2_tables();
  Result<void> count_l2_tables() coroutine_fn;
  void count_l2_table(L2Reference& table, std::span<std::byte> bytes);
  void count_odd_entry(L2Reference& table, uint64_t index, L2Entry entry, TableStatistics& statistics);
  bool check_subclusters(const L2Reference& table, uint64_t index, L2Entry entry);
  void count_compressed(const L2Reference& table, uint64_t index, L2Entry entry, TableStatistics& statistics);
  void count_unaligned(L2Reference& table, L2Entry entry, TableStatistics& statistics);

  // --- check_refcounts.cc
  Result<void> load_refcount_table() coroutine_fn;
  void count_refcount_structures();
  [[nodiscard]] BlockState block_state(uint64_t index) const;
  [[nodiscard]] HostOffset block_offset(uint64_t index) const;
  Result<void> walk_refcounts(bool count_errors, const OnDifference& on_difference) coroutine_fn;
  void report_unknown_refcounts(uint64_t block, HostCluster first, uint64_t count);
  bool compare_block(HostCluster first, uint64_t count, std::byte* block, const OnDifference& on_difference);
  bool compare_run(HostCluster first, uint64_t count, std::byte* block, uint64_t index,
                   const OnDifference& on_difference);
  void note_copied(uint8_t counter, uint64_t refcount);
  void note_use(HostCluster cluster) { highest_used_ = std::max(highest_used_, cluster.v); }

  Qcow2& image_;
  CheckReporter* reporter_;
  std::function<bool()> should_stop_;
  const bool repair_entries_;

  // Constant after prepare().
  BlockNode& file_;
  const Geometry geometry_;
  Header header_;
  uint64_t file_bytes_ = 0, file_clusters_ = 0;
  bool external_data_ = false;

  CheckResult result_;
  std::optional<ClusterCounts> counts_;
  uint64_t touched_end_ = 0;                  ///< one behind the last cluster that is referenced
  uint64_t highest_used_ = 0;                 ///< the last cluster with a count or a refcount
  std::vector<MetadataExtent> metadata_;      ///< but L2 tables and the data of bitmaps
  std::optional<ClusterCounts> bitmap_data_;  ///< clusters that hold bits; nothing: there are none
  std::vector<L2Reference> l2_tables_, new_l2_tables_;
  std::vector<uint64_t> refcount_table_;
  std::vector<uint64_t> blocks_outside_;  ///< indexes into refcount_table_ that point behind the end of the file
  uint64_t low_refcounts_ = 0;            ///< clusters whose refcount is lower than the count
  bool overflowed_ = false;               ///< a count is higher than a refcount can be
  uint64_t snapshot_defects_ = 0;
  bool snapshot_table_counted_ = false;
  std::vector<DamagedBitmapTable> damaged_bitmap_tables_;
  uint64_t lost_bitmap_tables_ = 0;
  bool needs_rebuild_ = false, io_failed_ = false, lost_references_ = false, copied_suspect_ = false;
  bool active_l1_counted_ = false;  ///< else no entry is known to be there
};

}  // namespace coimg::qcow2
