// Checker, L1 and L2 tables: counts what they refer to. See check.h.
//
// Format: qcow2, sections "L1 and L2 tables", "Compressed clusters: Descriptor".
#include <fmt/format.h>

#include <algorithm>
#include <cstring>

#include "block/util/buffer.h"
#include "formats/qcow2/check.h"
#include "formats/qcow2/entry_runs.h"
#include "formats/qcow2/ordered_reads.h"
#include "formats/qcow2/qcow2.h"

namespace coimg::qcow2 {
namespace {

/// L2 tables read ahead. Enough for small tables on a fast disk; with the largest clusters it is 16 MiB of memory.
constexpr unsigned kTablesInFlight = 8;

/// L2 tables that only snapshots use are looked at after those of the active L1 table.
constexpr uint32_t kInactiveOrder = 1u << 30;
static_assert(kMaxL1Entries < kInactiveOrder);

/// Below this number of tables it does not matter whether they are merged.
constexpr size_t kTablesToMerge = 65536;

uint64_t load_be64(const std::byte* bytes) {
  uint64_t value;
  std::memcpy(&value, bytes, sizeof value);
  return std::endian::native == std::endian::little ? __builtin_bswap64(value) : value;
}

}  // namespace

// --- L1 -------------------------------------------------------------------------------------------------------------

void Checker::count_active_l1() {
  image_.lock_.assert_wrlocked();
  const size_t entries = image_.l1_table_.size();
  active_l1_counted_ = add_metadata(header_.l1_table_offset, entries * 8, 1, Metadata::kActiveL1);
  if (!active_l1_counted_) return;
  const uint64_t tables = std::ranges::count_if(image_.l1_table_, [](L1Entry entry) { return entry.has_table(); });
  l2_tables_.reserve(std::min(tables, file_clusters_));
  for (size_t i = 0; i < entries; ++i) {
    const L1Entry entry = image_.l1_table_[i];
    if (entry.raw() != 0) count_l1_entry(entry, i, 1, true);
  }
}

Result<void> Checker::count_snapshot_l1(const Snapshot& snapshot, uint64_t times) {
  const auto skip = [&](std::string_view problem) {
    report(
        fmt::format("ERROR snapshot {} ({}) {}; snapshot table entry corrupted", snapshot.id, snapshot.name, problem));
    result_.corruptions += times;
    lost_references_ = true;
  };
  if (!is_aligned(snapshot.l1_table_offset.v, geometry_.cluster_size())) {
    skip(fmt::format("l1_offset={:#x}: L1 table is not cluster aligned", snapshot.l1_table_offset.v));
    return {};
  }
  if (snapshot.l1_size > kMaxL1Entries) {
    skip(fmt::format("l1_size={:#x}: L1 table is too large", snapshot.l1_size));
    return {};
  }
  const uint64_t bytes = uint64_t{snapshot.l1_size} * 8;
  if (bytes == 0 || !add_metadata(snapshot.l1_table_offset, bytes, times)) return {};

  AlignedBuffer table(bytes);
  const Result<void> status = read_padded(file_, snapshot.l1_table_offset, table.span());
  if (!status.ok()) {
    report_unreadable("snapshot's L1 table", snapshot.l1_table_offset, status.error());
    return {};
  }
  for (uint64_t i = 0; i < snapshot.l1_size; ++i) {
    const L1Entry entry(load_be64(table.data() + i * 8));
    if (entry.raw() != 0) count_l1_entry(entry, i, times, false);
  }
  return {};
}

void Checker::count_l1_entry(L1Entry entry, uint64_t index, uint64_t times, bool active) {
  if (entry.reserved() != 0) {
    report(fmt::format("ERROR found L1 entry with reserved bits set: {:x}", entry.raw()));
    result_.corruptions += times;
  }
  if (!entry.has_table()) {
    if (!entry.copied()) return;
    lost_references_ = true;  // once there was a table
    if (active) {
      copied_suspect_ = true;
    } else {
      report(fmt::format("ERROR snapshot L1 entry {:x} is marked as in use without an L2 table", entry.raw()));
      result_.corruptions += times;
    }
    return;
  }
  const HostOffset offset = entry.l2_table();
  if (!is_aligned(offset.v, geometry_.cluster_size())) {
    // What lies there is no table, so it is not followed.
    report(fmt::format("ERROR l2_offset={:x}: Table is not cluster aligned; L1 entry corrupted", offset.v));
    result_.corruptions += times;
    lost_references_ = true;
    add_region(offset, geometry_.cluster_size(), times);
    return;
  }
  if (!accept_region(offset, geometry_.cluster_size(), times, active)) {
    lost_references_ = true;
    return;
  }
  uint8_t marks = 0;
  if (active) marks = entry.copied() ? ClusterCounts::kSeenCopied : ClusterCounts::kSeenUncopied;
  const auto l1_index = static_cast<uint32_t>(index);
  new_l2_tables_.push_back({.offset = offset,
                            .inactive = active ? 0 : times,
                            .active = active ? 1u : 0,
                            .marks = marks,
                            .order = active ? l1_index : kInactiveOrder + l1_index});
  // Seldom enough that each table is moved a few times only, however many L1 tables there are.
  if (new_l2_tables_.size() >= std::max(l2_tables_.size() / 8, kTablesToMerge)) merge_new_l2_tables();
}

/// Moves new_l2_tables_ into l2_tables_, which is sorted by offset and has each table once.
void Checker::merge_new_l2_tables() {
  std::ranges::sort(new_l2_tables_, {},
                    [](const L2Reference& table) { return std::pair(table.offset.v, uint32_t{table.order}); });
  size_t old_tables = l2_tables_.size();
  l2_tables_.resize(old_tables + new_l2_tables_.size());
  for (size_t to = l2_tables_.size(); !new_l2_tables_.empty();) {  // from behind, in place
    if (old_tables != 0 && l2_tables_[old_tables - 1].offset > new_l2_tables_.back().offset) {
      l2_tables_[--to] = l2_tables_[--old_tables];
    } else {
      l2_tables_[--to] = new_l2_tables_.back();
      new_l2_tables_.pop_back();
    }
  }
  size_t kept = 0;
  for (size_t i = 1; i < l2_tables_.size(); ++i) {
    L2Reference& last = l2_tables_[kept];
    const L2Reference& table = l2_tables_[i];
    if (table.offset == last.offset) {
      last.active += table.active;
      last.marks |= table.marks;
      last.inactive += table.inactive;
      last.order = std::min<uint32_t>(last.order, table.order);
    } else {
      l2_tables_[++kept] = table;
    }
  }
  if (!l2_tables_.empty()) l2_tables_.resize(kept + 1);
}

// --- L2 -------------------------------------------------------------------------------------------------------------

Result<void> Checker::count_l2_tables() {
  new_l2_tables_.shrink_to_fit();
  l2_tables_.shrink_to_fit();
  std::ranges::sort(l2_tables_, {}, [](const L2Reference& table) { return uint32_t{table.order}; });
  uint64_t next = 0;
  return read_in_order(
      file_, kTablesInFlight, geometry_.cluster_size(),
      [&]() -> std::optional<OrderedRead> {
        if (next == l2_tables_.size()) return std::nullopt;
        const uint64_t index = next++;
        return OrderedRead{l2_tables_[index].offset, geometry_.cluster_size(), index};
      },
      [&](const OrderedRead& read, const Result<void>& status, std::span<std::byte> bytes) -> Result<void> {
        COIMG_TRY(check_not_stopped());
        L2Reference& table = l2_tables_[read.tag];
        // Together with its data, which mostly lie beside it, so that few counters differ at any time; and for all L1
        // tables at once, so that what overflows is reported once.
        add_region(table.offset, geometry_.cluster_size(), table.active + table.inactive, table.marks);
        if (status.ok()) {
          count_l2_table(table, bytes);
        } else {
          report_unreadable("L2 table", read.offset, status.error());
        }
        return {};
      });
}

void Checker::count_l2_table(L2Reference& table, std::span<std::byte> bytes) {
  const uint64_t cluster_size = geometry_.cluster_size();
  // Nearly all entries are plain: a data cluster, aligned, inside the file. They are counted right here.
  const uint64_t not_plain = kL2Compressed | kL2Zero | kL2ReservedMask | (cluster_size - 1);
  const uint64_t plain_end = external_data_ ? 0 : geometry_.cluster_down(file_bytes_);
  const uint64_t times = table.active + table.inactive;
  const uint8_t copied = table.active ? ClusterCounts::kSeenCopied : 0;
  const uint8_t uncopied = table.active ? ClusterCounts::kSeenUncopied : 0;

  TableStatistics statistics;
  uint64_t highest = 0;
  const L2Entries entries(bytes, geometry_);
  const size_t words_per_entry = geometry_.l2_entry_bytes() / sizeof(be64);
  for (size_t i = 0; i < entries.size(); ++i) {
    const uint64_t raw = entries.words()[i * words_per_entry];
    if (raw == 0 && words_per_entry == 1) continue;
    const uint64_t offset = raw & kEntryOffsetMask;
    if ((raw & not_plain) != 0 || offset - 1 >= plain_end - 1 || plain_end == 0) [[unlikely]] {
      count_odd_entry(table, i, entries[i], statistics);
      continue;
    }
    statistics.fragmented += statistics.next_offset != 0 && statistics.next_offset != offset;
    const HostCluster cluster = geometry_.host_cluster(HostOffset(offset));
    const uint8_t mark = raw & kEntryCopied ? copied : uncopied;
    uint64_t row = 1;
    if (words_per_entry != 1) {
      static_cast<void>(check_subclusters(table, i, entries[i]));
    } else {  // the clusters that lie behind it, too
      const uint64_t most = std::min(entries.size() - i, (plain_end - offset) >> geometry_.cluster_bits());
      row = count_run({entries.words() + i, most}, raw, cluster_size, ~uint64_t{0});
    }
    add_clusters(cluster, row, times, mark);
    i += row - 1;
    statistics.allocated += row;
    statistics.next_offset = offset + row * cluster_size;
    highest = std::max(highest, statistics.next_offset - cluster_size);
  }
  touched_end_ = std::max(touched_end_, geometry_.host_cluster(HostOffset(highest)).v + 1);
  result_.allocated_clusters += statistics.allocated * table.active;
  result_.compressed_clusters += statistics.compressed * table.active;
  result_.fragmented_clusters += statistics.fragmented * table.active;
}

void Checker::count_odd_entry(L2Reference& table, uint64_t index, L2Entry entry, TableStatistics& statistics) {
  const uint64_t times = table.active + table.inactive;
  const ClusterType type = entry.type();
  if (geometry_.extended_l2() && !check_subclusters(table, index, entry) && type == ClusterType::kCompressed) return;
  if (type == ClusterType::kCompressed) {
    count_compressed(table, index, entry, statistics);
    return;
  }
  if (entry.reserved() != 0) {
    report(fmt::format("ERROR found l2 entry with reserved bits set: {:x}", entry.raw()));
    result_.corruptions += times;
  }
  if (type != ClusterType::kNormal && type != ClusterType::kZeroAllocated) return;

  if (!is_aligned(entry.host().v, geometry_.cluster_size())) {
    count_unaligned(table, entry, statistics);
    return;
  }
  ++statistics.allocated;
  statistics.fragmented += statistics.next_offset != 0 && statistics.next_offset != entry.host().v;
  statistics.next_offset = entry.host().v + geometry_.cluster_size();
  if (external_data_) {  // its clusters have no refcounts: they count as used once
    if (table.active && !entry.copied()) copied_suspect_ = true;
    return;
  }
  uint8_t marks = 0;
  if (table.active) marks = entry.copied() ? ClusterCounts::kSeenCopied : ClusterCounts::kSeenUncopied;
  add_region(entry.host(), geometry_.cluster_size(), times, marks);
}

/// Whether the map of an extended entry can be true; reports it if not.
bool Checker::check_subclusters(const L2Reference& table, uint64_t index, L2Entry entry) {
  std::string problem;
  switch (entry.type()) {
    case ClusterType::kCompressed:
      if (entry.map().raw() == 0) return true;
      problem = fmt::format("ERROR compressed cluster {} with non-zero subcluster allocation bitmap, entry={:#x}",
                            index, entry.raw());
      break;
    case ClusterType::kUnallocated:
      if (entry.map().stored() == 0) return true;
      problem = "ERROR: Unallocated cluster has non-zero subcluster allocation map";
      break;
    default:
      if (!entry.map().contradicts_itself()) return true;
      problem = fmt::format("ERROR offset={:x}: Allocated cluster has corrupted subcluster allocation bitmap",
                            entry.host().v);
  }
  report(problem);
  result_.corruptions += table.active + table.inactive;
  return false;
}

void Checker::count_compressed(const L2Reference& table, uint64_t index, L2Entry entry, TableStatistics& statistics) {
  const uint64_t times = table.active + table.inactive;
  if (external_data_) {
    report(fmt::format("ERROR compressed cluster {} with data file, entry={:#x}", index, entry.raw()));
    result_.corruptions += times;
    return;
  }
  const CompressedRange range = entry.compressed_range(geometry_);
  if (entry.copied()) {
    report(fmt::format("ERROR: coffset={:#x}: copied flag must never be set for compressed clusters", range.offset.v));
    result_.corruptions += times;
  }
  ++statistics.allocated;
  ++statistics.compressed;
  ++statistics.fragmented;
  add_region(range.offset, range.bytes, times);
}

void Checker::count_unaligned(L2Reference& table, L2Entry entry, TableStatistics& statistics) {
  const uint64_t times = table.active + table.inactive;
  const bool zero = entry.has_empty_place(geometry_);
  const bool repair = zero && repair_entries_;
  report(fmt::format("{} offset={:x}: {} cluster is not properly aligned; L2 entry corrupted.",
                     repair ? "Repairing" : "ERROR", entry.host().v, zero ? "Preallocated" : "Data"));
  result_.corruptions += times;
  if (repair) {
    table.has_misplaced_zero = true;
    return;
  }
  ++statistics.allocated;
  statistics.fragmented += statistics.next_offset != 0 && statistics.next_offset != entry.host().v;
  statistics.next_offset = entry.host().v + geometry_.cluster_size();
  if (external_data_) return;
  if (table.active) copied_suspect_ = true;
  add_region(entry.host(), geometry_.cluster_size(), times);
}

}  // namespace coimg::qcow2
