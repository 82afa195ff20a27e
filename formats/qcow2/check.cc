#include "formats/qcow2/check.h"

#include <fmt/format.h>

#include <algorithm>
#include <cassert>

#include "block/util/buffer.h"
#include "formats/qcow2/ordered_reads.h"
#include "formats/qcow2/qcow2.h"
#include "formats/qcow2/repair.h"

namespace coimg::qcow2 {
namespace {

/// As in qemu-img; also keeps the table of counters small.
constexpr uint64_t kMaxFileClusters = (uint64_t{1} << 31) - 1;

/// Clusters behind the end of the file that a rebuild of the refcounts may come to use.
uint64_t rebuild_window(const Geometry& geometry, uint64_t clusters) {
  const uint64_t blocks = clusters / geometry.refcounts_per_block() + 2;
  const uint64_t table = geometry.clusters_for(blocks * 8) + 1;
  return 2 * (blocks + table) + 16;
}

}  // namespace

Result<CheckResult> Qcow2::check(const CheckOptions& options) {
  assert(options.repair == RepairMode::kNone || flags_.writable);
  // Writes in progress own clusters that no table refers to yet: let them end first.
  TrackedRequest all_requests(in_flight_, 0, kMaxFileOffset, RangeMode::kExclusive);
  CoWriteGuard guard(lock_);
  if (flags_.writable) COIMG_TRY(flush_locked());

  return Repairer(*this, options).run();
}

Checker::Checker(Qcow2& image, CheckReporter& reporter, bool repair_entries)
    : image_(image),
      reporter_(&reporter),
      repair_entries_(repair_entries),
      file_(image.file_),
      geometry_(image.geometry_) {}

Result<void> Checker::prepare() {
  image_.lock_.assert_wrlocked();
  header_ = image_.header_;
  external_data_ = (header_.incompatible_features & kExternalDataFile) != 0;
  file_bytes_ = file_.exact_length();
  file_clusters_ = geometry_.clusters_for(file_bytes_);
  if (file_clusters_ > kMaxFileClusters) {
    return Error(EFBIG, fmt::format("the file has {} clusters, more than the {} that can be checked", file_clusters_,
                                    kMaxFileClusters));
  }
  counts_.emplace(file_clusters_ + rebuild_window(geometry_, file_clusters_), geometry_.refcount_max());
  result_.total_clusters = geometry_.clusters_for(header_.size);
  return {};
}

Result<void> Checker::count_references() {
  COIMG_TRY(prepare());
  add_metadata(HostOffset(0), geometry_.cluster_size());
  count_active_l1();
  COIMG_TRY(count_snapshots());
  merge_new_l2_tables();
  COIMG_TRY(count_l2_tables());
  if (header_.encryption) add_metadata(header_.encryption->offset, header_.encryption->bytes);
  COIMG_TRY(count_bitmaps());
  COIMG_TRY(load_refcount_table());
  count_refcount_structures();
  std::ranges::sort(metadata_, {}, &MetadataExtent::offset);
  return {};
}

// --- regions --------------------------------------------------------------------------------------------------------

void Checker::report_overflow(HostCluster cluster, uint64_t excess) {
  report(fmt::format("ERROR: overflow cluster offset={:#x}", geometry_.host_offset(cluster).v));
  report("Use coimg convert -o refcount_bits=64 to create a clean copy with wider refcounts");
  result_.corruptions += excess;
  overflowed_ = true;
}

/// Counts a reference to each cluster of the range; false when it lies too far behind the end of the file.
bool Checker::add_region(HostOffset offset, uint64_t bytes, uint64_t times, uint8_t marks) {
  if (bytes == 0) return true;
  if (!accept_region(offset, bytes, times, marks != 0)) return false;
  const uint64_t first = geometry_.host_cluster(offset).v;
  const uint64_t last = geometry_.host_cluster(offset + (bytes - 1)).v;
  add_clusters(HostCluster(first), last - first + 1, times, marks);
  touched_end_ = std::max(touched_end_, last + 1);
  return true;
}

/// Whether the range can be counted; reports it if not.
bool Checker::accept_region(HostOffset offset, uint64_t bytes, uint64_t times, bool active) {
  const std::optional<uint64_t> end = checked_add(offset.v, bytes);
  if (end && (*end <= file_bytes_ || *end - file_bytes_ < geometry_.cluster_size())) return true;
  report(
      fmt::format("ERROR: counting reference for region exceeding the end of the file by one cluster or more: offset "
                  "{:#x} size {:#x}",
                  offset.v, bytes));
  result_.corruptions += times;
  if (active) copied_suspect_ = true;
  if (end) reserve_beyond_end(offset, *end);
  return false;
}

/// A row of clusters at once where that goes.
void Checker::add_clusters(HostCluster first, uint64_t count, uint64_t times, uint8_t marks) {
  for (uint64_t done = 0; done < count;) {
    done += counts_->add_row(first + done, count - done, times, marks);
    if (done < count) add_cluster(first + done++, times, marks);
  }
}

/// Keeps a rebuild from putting refcount blocks where a damaged entry points to, behind the end of the file.
void Checker::reserve_beyond_end(HostOffset offset, uint64_t end) {
  const uint64_t first = std::max(geometry_.host_cluster(offset).v, file_clusters_);
  const uint64_t last = std::min(geometry_.host_cluster(HostOffset(end - 1)).v, counts_->limit() - 1);
  for (uint64_t cluster = first; cluster <= last; ++cluster) counts_->add(HostCluster(cluster), 1, 0);
}

bool Checker::add_metadata(HostOffset offset, uint64_t bytes, uint64_t times, Metadata kind, uint8_t marks) {
  if (bytes == 0) return true;
  if (!add_region(offset, bytes, times, marks)) {
    lost_references_ = true;
    return false;
  }
  metadata_.push_back({geometry_.cluster_down(offset.v), geometry_.cluster_up(offset.v + bytes), kind});
  return true;
}

bool Checker::overlaps_metadata(HostOffset offset, uint64_t bytes, std::optional<Metadata> own) const {
  const HostCluster end(std::min(geometry_.host_cluster(offset + (bytes - 1)).v + 1, counts_->limit()));
  if (bitmap_data_ && bitmap_data_->any(geometry_.host_cluster(offset), end)) return true;
  return std::ranges::any_of(metadata_, [&](const MetadataExtent& extent) {
    return extent.offset < offset.v + bytes && offset.v < extent.end && extent.kind != own;
  });
}

bool Checker::is_used_only_for(HostOffset offset, uint64_t bytes, uint64_t times) const {
  const HostCluster first = geometry_.host_cluster(offset);
  for (uint64_t i = 0; i < geometry_.clusters_for(bytes); ++i) {
    if (counts_->get(first + i) != times) return false;
  }
  return true;
}

void Checker::report_unreadable(std::string_view what, HostOffset offset, const Error& error) {
  report(fmt::format("ERROR: could not read the {} at offset {:#x}: {}", what, offset.v, error.message()));
  ++result_.check_errors;
  io_failed_ = true;
}

// --- snapshots and bitmaps ------------------------------------------------------------------------------------------

Result<void> Checker::count_snapshots() {
  if (header_.nb_snapshots == 0) return {};
  SnapshotTable table = COIMG_TRY(load_snapshot_table(file_, header_, OversizedSnapshots::kDiscard));
  COIMG_TRY(report_oversized_snapshots(table));
  snapshot_table_counted_ = add_metadata(header_.snapshots_offset, table.bytes);
  if (external_data_) {
    report("ERROR: an image with an external data file cannot have snapshots");
    ++result_.corruptions;
  }
  for (size_t i = 0; i < table.snapshots.size(); ++i) {
    if (header_.version < 3 || table.snapshots[i].extra_bytes >= 16) continue;
    const bool mend = repair_entries_ && snapshot_table_counted_;
    report(fmt::format("{} snapshot table entry {} is incomplete", mend ? "Repairing" : "ERROR", i));
    ++snapshot_defects_;
    ++result_.corruptions;
  }
  // Damaged tables may share an L1 table: look at each only once.
  std::ranges::sort(table.snapshots, {},
                    [](const Snapshot& snapshot) { return std::pair(snapshot.l1_table_offset.v, snapshot.l1_size); });
  for (size_t i = 0; i < table.snapshots.size();) {
    COIMG_TRY(check_not_stopped());
    const Snapshot& snapshot = table.snapshots[i];
    uint64_t times = 0;
    while (i < table.snapshots.size() && table.snapshots[i].l1_table_offset == snapshot.l1_table_offset &&
           table.snapshots[i].l1_size == snapshot.l1_size) {
      ++i;
      ++times;
    }
    COIMG_TRY(count_snapshot_l1(snapshot, times));
  }
  return {};
}

/// What breaks a limit can only be discarded, which has to be asked for; nobody may open the image as long as it does.
Result<void> Checker::report_oversized_snapshots(const SnapshotTable& table) {
  for (size_t i = 0; i < table.snapshots.size(); ++i) {
    if (!has_too_much_extra(table.snapshots[i])) continue;
    if (!repair_entries_) {
      return Error(EFBIG, fmt::format("Too much extra metadata in snapshot table entry {}", i))
          .with_hint("You can force-remove this extra metadata with check -r all\n");
    }
    report(fmt::format("Discarding too much extra metadata in snapshot table entry {} ({} > {})", i,
                       table.snapshots[i].extra_bytes, kMaxSnapshotExtraBytes));
    ++snapshot_defects_;
    ++result_.corruptions;
  }
  if (table.overhanging == 0) return {};
  if (!repair_entries_) {
    return Error(EFBIG, "Snapshot table too large")
        .with_hint(
            fmt::format("You can force-remove all {} overhanging snapshots with check -r all\n", table.overhanging));
  }
  report(fmt::format("Discarding {} overhanging snapshots", table.overhanging));
  snapshot_defects_ += table.overhanging;
  result_.corruptions += table.overhanging;
  return {};
}

Result<void> Checker::count_bitmaps() {
  // Without the autoclear bit the extension is stale, and its clusters are leaks.
  if (!header_.bitmaps || !(header_.autoclear_features & kBitmapsValid)) return {};
  add_metadata(header_.bitmaps->directory_offset, header_.bitmaps->directory_bytes);
  std::vector<BitmapEntry> bitmaps = COIMG_TRY(load_bitmap_directory(file_, header_));
  uint64_t all_bytes = 0;
  for (const BitmapEntry& bitmap : bitmaps) {
    all_bytes += uint64_t{bitmap.table_entries} * sizeof(be64);
    if (all_bytes > kMaxBitmapTablesBytes) {
      return too_many_bitmap_tables().at("bitmap table", bitmap.table_offset.v);
    }
  }
  std::ranges::sort(bitmaps, {},
                    [](const BitmapEntry& bitmap) { return std::pair(bitmap.table_offset.v, bitmap.table_entries); });
  for (size_t i = 0; i < bitmaps.size();) {
    COIMG_TRY(check_not_stopped());
    const BitmapEntry& bitmap = bitmaps[i];
    uint64_t times = 0;
    while (i < bitmaps.size() && bitmaps[i].table_offset == bitmap.table_offset &&
           bitmaps[i].table_entries == bitmap.table_entries) {
      ++i;
      ++times;
    }
    const uint64_t table_bytes = uint64_t{bitmap.table_entries} * 8;
    if (!range_within(bitmap.table_offset.v, table_bytes, file_bytes_)) {
      note_lost_bitmap_table(bitmap, times);
      continue;
    }
    if (!add_metadata(bitmap.table_offset, table_bytes, times)) continue;
    AlignedBuffer table(table_bytes);
    const Result<void> status = read_padded(file_, bitmap.table_offset, table.span());
    if (!status.ok()) {
      report_unreadable("bitmap table", bitmap.table_offset, status.error());
      continue;
    }
    count_bitmap_table(bitmap, table.span(), times);
  }
  return {};
}

void Checker::count_bitmap_table(const BitmapEntry& bitmap, std::span<const std::byte> table, uint64_t times) {
  const auto* entries = reinterpret_cast<const be64*>(table.data());
  uint64_t damaged = 0;
  for (size_t i = 0; i < table.size() / 8; ++i) {
    const BitmapTableEntry entry(uint64_t{entries[i]});
    if (is_sound(entry)) {
      if (entry.cluster().v != 0) count_bitmap_data(entry.cluster(), times);
      continue;
    }
    report(fmt::format("{} bitmap '{}' table entry {} {}: {:x}", repair_entries_ ? "Repairing" : "ERROR", bitmap.name,
                       i, entry.valid(geometry_) ? "lies beyond the end of the file" : "is invalid", entry.raw()));
    ++damaged;
  }
  if (damaged == 0) return;
  result_.corruptions += damaged * times;
  if (!repair_entries_) {
    lost_references_ = true;
    return;
  }
  damaged_bitmap_tables_.push_back(
      {.offset = bitmap.table_offset, .entries = bitmap.table_entries, .times = times, .findings = damaged * times});
}

/// There may be millions, and those of a damaged image may be the same ones again and again.
void Checker::count_bitmap_data(HostOffset cluster, uint64_t times) {
  if (!add_region(cluster, geometry_.cluster_size(), times)) {
    lost_references_ = true;
    return;
  }
  if (!bitmap_data_) bitmap_data_.emplace(counts_->limit(), /*max=*/1);
  bitmap_data_->add(geometry_.host_cluster(cluster), 1, 0);
}

/// Also one that starts inside the last cluster: its entries would be taken for clean ones.
void Checker::note_lost_bitmap_table(const BitmapEntry& bitmap, uint64_t times) {
  report(fmt::format("{} bitmap '{}' table at offset {:#x} lies beyond the end of the file",
                     repair_entries_ ? "Repairing" : "ERROR", bitmap.name, bitmap.table_offset.v));
  result_.corruptions += times;
  if (repair_entries_) {
    lost_bitmap_tables_ += times;
  } else {
    lost_references_ = true;
  }
}

}  // namespace coimg::qcow2
