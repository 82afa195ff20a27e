// From guest ranges to extents: the L1 table, a slice of an L2 table, and as many equal entries as follow.
//
// Format: qcow2, sections "L1 and L2 tables", "Mapping a read", "Validation table: Tables and entries".
#include <fmt/format.h>

#include <algorithm>
#include <cassert>
#include <cstring>

#include "block/util/endian.h"
#include "block/util/hex.h"
#include "formats/qcow2/entry_runs.h"
#include "formats/qcow2/qcow2.h"

namespace coimg::qcow2 {

Result<Qcow2::L2Slice> Qcow2::load_l2_slice_locked(HostOffset l2_table, uint64_t l2_index) {
  const uint64_t position = l2_index * geometry_.l2_entry_bytes();
  const uint64_t start = align_down(position, l2_cache_->slice_bytes());
  MetadataCache::Pin pin = COIMG_TRY(l2_cache_->load(l2_table + start));
  const L2Entries entries({pin.data(), l2_cache_->slice_bytes()}, geometry_);
  return L2Slice{std::move(pin), entries, (position - start) / geometry_.l2_entry_bytes()};
}

Result<void> Qcow2::check_entry_locked(GuestOffset offset, L2Entry entry) {
  const ClusterType type = entry.type();
  if (type == ClusterType::kCompressed && !geometry_.external_data()) return {};
  const bool misplaced = geometry_.external_data() && entry.placed() && entry.host().v != 0 &&
                         entry.host().v != geometry_.cluster_down(offset.v);
  const bool misplaced_first = geometry_.external_data() && type == ClusterType::kNormal && entry.host().v == 0 &&
                               geometry_.cluster_down(offset.v) != 0;
  const bool unaligned = geometry_.in_cluster(entry.host().v) != 0;
  const bool untimely_zero = header_.version < 3 && (entry.raw() & kL2Zero) != 0;
  const bool bad_map = geometry_.extended_l2() && (entry.map().contradicts_itself() ||
                                                   (type == ClusterType::kUnallocated && entry.map().stored() != 0));
  const bool good_place = !unaligned && !misplaced && !misplaced_first && type != ClusterType::kCompressed;
  if (good_place && !untimely_zero && !bad_map) [[likely]]
    return {};
  const HostOffset l2_table = l1_table_[geometry_.l1_index(offset)].l2_table();
  const std::string place =
      fmt::format("(L2 offset: {}, L2 index: {})", c_hex(l2_table.v), c_hex(geometry_.l2_index(offset)));
  const auto damaged = [&](std::string reason) {
    return corruption(std::move(reason), true).at(l2_table.v + geometry_.l2_index(offset) * geometry_.l2_entry_bytes());
  };
  if (type == ClusterType::kCompressed) {
    return damaged("Compressed cluster entry found in image with external data file " + place);
  }
  if (untimely_zero) return damaged("Zero cluster entry found in pre-v3 image " + place);
  if (unaligned) {
    return damaged(fmt::format("Cluster allocation offset {} unaligned {}", c_hex(entry.host().v), place));
  }
  if (misplaced || misplaced_first) {
    return damaged(
        fmt::format("External data file host cluster offset {} does not match guest cluster offset: {}, "
                    "L2 index: {}",
                    c_hex(entry.host().v), c_hex(geometry_.cluster_down(offset.v)), c_hex(geometry_.l2_index(offset))));
  }
  // People know the line with two blanks, but not that for images that are written to.
  return damaged((flags_.writable ? "Invalid cluster entry found " : "Invalid cluster entry found  ") + place);
}

Result<Extent> Qcow2::map_locked(GuestOffset offset, uint64_t max_bytes) {
  assert(max_bytes > 0);
  const uint64_t table_bytes = geometry_.l2_coverage();
  Extent extent;
  extent.bytes = std::min(max_bytes, table_bytes - offset.v % table_bytes);

  const uint64_t l1_index = geometry_.l1_index(offset);
  if (l1_index >= l1_table_.size() || !l1_table_[l1_index].has_table()) {
    // On to the next table: a large disk has millions of entries without one.
    uint64_t next = l1_index + 1;
    for (; extent.bytes < max_bytes && next < l1_table_.size() && !l1_table_[next].has_table(); ++next) {
      extent.bytes += std::min(max_bytes - extent.bytes, table_bytes);
    }
    return extent;
  }
  const L1Entry l1_entry = l1_table_[l1_index];
  const HostOffset l2_table = l1_entry.l2_table();
  if (geometry_.in_cluster(l2_table.v) != 0) {
    return corruption(fmt::format("L2 table offset {} unaligned (L1 index: {})", c_hex(l2_table.v), c_hex(l1_index)),
                      true);
  }

  const L2Slice slice = COIMG_TRY(load_l2_slice_locked(l2_table, geometry_.l2_index(offset)));
  extent.entry = slice.entries[slice.index];
  COIMG_TRY(check_entry_locked(offset, extent.entry));
  if (geometry_.extended_l2()) {
    extend_extended(extent, offset, slice);
  } else {
    extend_standard(extent, offset, slice);
  }
  extent.writable_in_place = extent.type == ClusterType::kNormal && extent.entry.copied() && l1_entry.copied();
  return extent;
}

/// Settles the type, and shortens the extent to the entries that go on like the first one.
void Qcow2::extend_standard(Extent& extent, GuestOffset offset, const L2Slice& slice) const {
  const std::span entries(slice.entries.words() + slice.index, slice.entries.size() - slice.index);
  const uint64_t in_cluster = geometry_.in_cluster(offset.v);
  const uint64_t most = std::min(geometry_.clusters_for(in_cluster + extent.bytes), entries.size());
  const uint64_t raw = extent.entry.raw();
  uint64_t clusters = 1, step = 0;
  extent.type = extent.entry.type();
  switch (extent.type) {
    case ClusterType::kCompressed:
      break;
    case ClusterType::kUnallocated:
    case ClusterType::kZeroPlain:
      // COPIED has no meaning without a host cluster.
      clusters = count_run(entries.first(most), raw, step,
                           ~(kL2ReservedMask | (geometry_.external_data() ? 0 : kEntryCopied)));
      break;
    case ClusterType::kNormal:
    case ClusterType::kZeroAllocated:
      step = geometry_.cluster_size();
      clusters = std::min(most, geometry_.clusters_for(kMaxHostOffset - extent.entry.host().v));
      clusters = count_run(entries.first(clusters), raw, step, ~kL2ReservedMask);
      extent.host = extent.entry.host() + in_cluster;
      break;
  }
  if (clusters < most && extent.type != ClusterType::kCompressed) {
    const uint64_t difference = uint64_t{entries[clusters]} ^ (raw + clusters * step);
    extent.complete = (difference & ~(kL2ReservedMask | kEntryCopied)) != 0;
  }
  extent.bytes = std::min(extent.bytes, clusters * geometry_.cluster_size() - in_cluster);
}

/// The same by subclusters.
void Qcow2::extend_extended(Extent& extent, GuestOffset offset, const L2Slice& slice) const {
  const uint64_t unit = geometry_.state_unit();
  const uint32_t first = geometry_.subcluster_of(offset.v);
  extent.type = extent.entry.type_at(first);
  const uint64_t in_cluster = geometry_.in_cluster(offset.v);
  if (extent.type == ClusterType::kCompressed) {
    extent.bytes = std::min(extent.bytes, geometry_.cluster_size() - in_cluster);
    return;
  }
  const bool placed = extent.entry.placed();
  if (placed) extent.host = extent.entry.host() + in_cluster;

  uint64_t covered = (first + 1) * unit - in_cluster;
  uint32_t subcluster = first + 1;
  for (size_t i = slice.index; covered < extent.bytes && i < slice.entries.size(); ++i, subcluster = 0) {
    const L2Entry entry = slice.entries[i];
    const uint64_t distance = (i - slice.index) << geometry_.cluster_bits();
    const HostOffset expected = placed ? extent.entry.host() + distance : HostOffset(0);
    const bool continues = !entry.map().contradicts_itself() && entry.copied() == extent.entry.copied() &&
                           entry.host() == expected && entry.placed() == placed && expected.v < kMaxHostOffset;
    for (; subcluster < kSubclusters && covered < extent.bytes; ++subcluster) {
      if (!continues || entry.type_at(subcluster) != extent.type) {
        extent.bytes = covered;
        return;
      }
      covered += unit;
    }
  }
  extent.bytes = std::min(extent.bytes, covered);
}

}  // namespace coimg::qcow2
