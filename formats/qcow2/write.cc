// Writing guest data.
//
// A request that finds all its clusters in place, used by nobody else, writes there. Any other takes its clusters
// exclusively and goes through three steps: plan (find out what is there, allocate host clusters), write (the data, and
// around it what the first and last cluster held before), link (L2 entries, then the old clusters are freed). lock_ is
// held for the first and the last step, not while data moves. A failure before the link frees the new clusters; nothing
// has changed then.
//
// Format: qcow2, sections "Plain write", "Copy-on-write ranges", "Concurrent requests".
#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <cassert>

#include "block/util/buffer.h"
#include "block/util/endian.h"
#include "block/util/math.h"
#include "formats/qcow2/qcow2.h"

namespace coimg::qcow2 {

namespace {

/// Zeros for writing, one piece of a vector for each part of a longer range. In the zero pages of the program.
alignas(AlignedBuffer::kAlignment) std::byte zeros[64 * kKiB];

void add_zeros(IoVector& iov, uint64_t bytes) {
  while (bytes > 0) {
    const uint64_t step = std::min<uint64_t>(bytes, sizeof zeros);
    iov.add(std::span(zeros).first(step));
    bytes -= step;
  }
}

/// What a write can do with a guest cluster as it is: write into it, the same and then tell so in the entry, or
/// neither.
enum class Target { kInPlace, kReuse, kAllocate };

/// `touched` are the subclusters that will be written to, all without extended entries.
Target classify(const Geometry& geometry, L2Entry entry, uint32_t touched) {
  if (!entry.copied()) return Target::kAllocate;
  if (entry.type() == ClusterType::kZeroAllocated) return Target::kReuse;
  if (entry.type() != ClusterType::kNormal) return Target::kAllocate;
  const bool stored = !geometry.extended_l2() || (touched & ~entry.map().stored()) == 0;
  return stored ? Target::kInPlace : Target::kReuse;
}

}  // namespace

Result<void> Qcow2::check_usable() const {
  if (failed_) return Error(EIO, "image is corrupt; no further requests are possible");
  return {};
}

Result<void> Qcow2::pwritev(uint64_t offset, const IoVector& iov, const WriteOptions& options) {
  COIMG_TRY(check_usable());
  const DamageScope damage(*this);
  const GuestOffset guest(offset);
  {
    const TrackedRequest request(in_flight_, offset, iov.size(), RangeMode::kShared);
    COIMG_TRY(bitmaps_.note_change(offset, iov.size()));
    std::vector<Extent> extents;
    if (COIMG_TRY(map_in_place(guest, iov.size(), extents))) {
      if (options.placement) options.placement->finish();
      uint64_t done = 0;
      for (const Extent& extent : extents) {
        file_.debug_event(DebugEvent::kWriteAio);
        COIMG_TRY(data_.co_pwritev(extent.host.v, iov.slice(done, extent.bytes)));
        done += extent.bytes;
      }
      return {};
    }
  }
  // The turn comes before the range: an earlier ticket may need the same cluster, and must not wait for this one.
  if (options.placement) options.placement->wait_turn();
  const uint64_t first = geometry_.cluster_down(offset);
  const uint64_t end = geometry_.cluster_up(offset + iov.size());
  const TrackedRequest request(in_flight_, first, end - first, RangeMode::kExclusive);
  COIMG_TRY(bitmaps_.note_change(offset, iov.size()));  // once more: a bitmap may have changed in between
  return write_allocating(guest, iov, options.placement);
}

/// Whether the whole range can be written where it is; then `extents` says where that is.
Result<bool> Qcow2::map_in_place(GuestOffset offset, uint64_t bytes, std::vector<Extent>& extents) {
  CoReadGuard guard(lock_);
  for (uint64_t done = 0; done < bytes;) {
    const Extent extent = COIMG_TRY(map_locked(offset + done, bytes - done));
    if (!extent.writable_in_place) return false;
    if (!geometry_.external_data()) COIMG_TRY(check_overlap_locked(extent.host, extent.bytes));
    extents.push_back(extent);
    done += extent.bytes;
  }
  return true;
}

Result<void> Qcow2::write_allocating(GuestOffset offset, const IoVector& iov, PlacementOrder::Ticket* ticket) {
  WritePlan plan;
  {
    CoWriteGuard guard(lock_);
    plan = COIMG_TRY(plan_write_locked(offset, iov.size()));
  }
  if (ticket) ticket->finish();
  auto written = write_planned(plan, offset, iov);
  if (!written.ok()) {
    abandon_plan(plan);
    return written;
  }
  return link_and_release(std::move(plan));
}

Result<void> Qcow2::write_zero_bytes(GuestOffset offset, uint64_t bytes) {
  constexpr uint64_t kLargest = kMiB;
  while (bytes > 0) {
    const uint64_t step = std::min(bytes, kLargest);
    IoVector iov;
    add_zeros(iov, step);
    COIMG_TRY(write_allocating(offset, iov, nullptr));
    offset += step;
    bytes -= step;
  }
  return {};
}

// --- plan ------------------------------------------------------------------------------------------------------------

Result<WritePlan> Qcow2::plan_write_locked(GuestOffset offset, uint64_t bytes) {
  const GuestOffset data_end = offset + bytes;
  const GuestOffset first(geometry_.cluster_down(offset.v));
  const GuestOffset end(geometry_.cluster_up(data_end.v));

  WritePlan plan;
  plan.stored_from = COIMG_TRY(stored_start_locked(offset));
  plan.stored_to = COIMG_TRY(stored_end_locked(data_end));
  // A data file ends where the disk does, as it may have to pass for a raw image of it.
  if (geometry_.external_data())
    plan.stored_to = std::min(plan.stored_to, std::max(data_end, GuestOffset(virtual_size_)));
  plan.head = COIMG_TRY(map_range_locked(plan.stored_from, offset));
  plan.tail = COIMG_TRY(map_range_locked(data_end, std::min(plan.stored_to, GuestOffset(virtual_size_))));

  auto extended = extend_plan_locked(first, end, plan);
  if (!extended.ok()) {
    abandon_plan(plan);
    return std::move(extended).error();
  }
  return plan;
}

/// The L2 entry of the cluster at `offset`.
Result<L2Entry> Qcow2::entry_locked(GuestOffset offset) {
  const uint64_t l1_index = geometry_.l1_index(offset);
  if (l1_index >= l1_table_.size() || !l1_table_[l1_index].has_table()) return L2Entry();
  const HostOffset table = l1_table_[l1_index].l2_table();
  if (geometry_.in_cluster(table.v) != 0) {
    return corruption(fmt::format("L2 table offset {:#x} unaligned (L1 index: {:#x})", table.v, l1_index), true);
  }
  const L2Slice slice = COIMG_TRY(load_l2_slice_locked(table, geometry_.l2_index(offset)));
  const L2Entry entry = slice.entries[slice.index];
  COIMG_TRY(check_entry_locked(offset, entry));
  // Of a table that is shared nothing is written in place.
  return l1_table_[l1_index].copied() ? entry : entry.with_copied(false);
}

/// Where storing a write of data from `offset` on has to begin, so that what was in front of it stays.
Result<GuestOffset> Qcow2::stored_start_locked(GuestOffset offset) {
  const GuestOffset cluster(geometry_.cluster_down(offset.v));
  if (cluster == offset) return offset;
  const L2Entry entry = COIMG_TRY(entry_locked(offset));
  if (!geometry_.extended_l2()) {
    return classify(geometry_, entry, ~0U) == Target::kInPlace ? offset : cluster;
  }
  const uint32_t subcluster = geometry_.subcluster_of(offset.v);
  const GuestOffset start = cluster + subcluster * geometry_.state_unit();
  if (entry.type() == ClusterType::kCompressed) return cluster;
  if (entry.copied()) return entry.map().stored() >> subcluster & 1 ? offset : start;
  const uint32_t moving = entry.map().stored();  // to the new cluster, with all that lies in between
  if (moving == 0) return start;
  return std::min(start, cluster + static_cast<uint32_t>(std::countr_zero(moving)) * geometry_.state_unit());
}

/// Where it has to end, for data up to `end`.
Result<GuestOffset> Qcow2::stored_end_locked(GuestOffset end) {
  if (geometry_.in_cluster(end.v) == 0) return end;
  const GuestOffset cluster(geometry_.cluster_down(end.v));
  const GuestOffset cluster_end = cluster + geometry_.cluster_size();
  const L2Entry entry = COIMG_TRY(entry_locked(cluster));
  if (!geometry_.extended_l2()) {
    return classify(geometry_, entry, ~0U) == Target::kInPlace ? end : cluster_end;
  }
  const uint32_t subcluster = geometry_.subcluster_of(end.v - 1);
  const GuestOffset subcluster_end = cluster + (subcluster + 1) * geometry_.state_unit();
  if (entry.type() == ClusterType::kCompressed) return cluster_end;
  if (entry.copied()) return entry.map().stored() >> subcluster & 1 ? end : subcluster_end;
  const uint32_t moving = entry.map().stored();
  if (moving == 0) return subcluster_end;
  const auto behind_last = kSubclusters - static_cast<uint32_t>(std::countl_zero(moving));
  return std::max(subcluster_end, cluster + behind_last * geometry_.state_unit());
}

/// The mapping of [from, to), which may be empty.
Result<std::vector<Extent>> Qcow2::map_range_locked(GuestOffset from, GuestOffset to) {
  std::vector<Extent> extents;
  while (from < to) {
    extents.push_back(COIMG_TRY(map_locked(from, to - from)));
    from += extents.back().bytes;
  }
  return extents;
}

/// The subclusters of `cluster` that the plan stores to.
uint32_t Qcow2::touched_subclusters(const WritePlan& plan, GuestOffset cluster) const {
  return plan.map_after(geometry_, cluster, L2Entry()).stored();
}

/// Fills the plan with runs for [first, end), both cluster aligned. After an error it holds what is to be abandoned.
Result<void> Qcow2::extend_plan_locked(GuestOffset first, GuestOffset end, WritePlan& plan) {
  const uint64_t cluster_size = geometry_.cluster_size();
  GuestOffset allocate_from = first;  // what lies between it and `guest` needs new clusters
  for (GuestOffset guest = first; guest < end;) {
    const HostOffset table = COIMG_TRY(ensure_l2_table_locked(guest));
    const L2Slice slice = COIMG_TRY(load_l2_slice_locked(table, geometry_.l2_index(guest)));
    for (size_t index = slice.index; index < slice.entries.size() && guest < end; ++index, guest += cluster_size) {
      const L2Entry entry = slice.entries[index];
      COIMG_TRY(check_entry_locked(guest, entry));
      const Target target = classify(geometry_, entry, touched_subclusters(plan, guest));
      if (target == Target::kAllocate) continue;

      COIMG_TRY(allocate_runs_locked(allocate_from, (guest - allocate_from) / cluster_size, plan));
      allocate_from = guest + cluster_size;
      if (!geometry_.external_data()) COIMG_TRY(check_overlap_locked(entry.host(), cluster_size));
      plan.append(geometry_, {.guest = guest,
                              .clusters = 1,
                              .host = entry.host(),
                              .fresh = false,
                              .needs_link = target == Target::kReuse});
    }
  }
  return allocate_runs_locked(allocate_from, (end - allocate_from) / cluster_size, plan);
}

// --- write -----------------------------------------------------------------------------------------------------------

/// Reads what lies at `from` on, by the mapping of before.
Result<void> Qcow2::read_extents(GuestOffset from, const std::vector<Extent>& extents, std::span<std::byte> memory) {
  for (const Extent& extent : extents) {
    COIMG_TRY(read_extent(from, extent, IoVector(memory.first(extent.bytes))));
    memory = memory.subspan(extent.bytes);
    from += extent.bytes;
  }
  return {};
}

/// Writes the data, and what has to be kept around them, to where the plan says: in one request for each stretch of the
/// file.
Result<void> Qcow2::write_planned(const WritePlan& plan, GuestOffset offset, const IoVector& iov) {
  const GuestOffset data_end = offset + iov.size();
  AlignedBuffer head(offset - plan.stored_from);
  AlignedBuffer tail = AlignedBuffer::zeroed(plan.stored_to - data_end);
  const auto has_data = [this](const Extent& extent) {
    return extent.type == ClusterType::kUnallocated ? backing() != nullptr : extent.type != ClusterType::kZeroPlain;
  };
  const bool copies = std::ranges::any_of(plan.head, has_data) || std::ranges::any_of(plan.tail, has_data);
  if (copies) file_.debug_event(DebugEvent::kCowRead);
  COIMG_TRY(read_extents(plan.stored_from, plan.head, head.span()));
  COIMG_TRY(read_extents(data_end, plan.tail, tail.span()));
  IoVector stored;
  if (head.size() != 0) stored.add(head.span());
  stored.add(iov, 0, iov.size());
  if (tail.size() != 0) stored.add(tail.span());

  if (copies) {
    file_.debug_event(DebugEvent::kCowWrite);
  } else if (head.size() + tail.size() != 0) {
    file_.debug_event(DebugEvent::kClusterAllocSpace);
  }
  file_.debug_event(DebugEvent::kWriteAio);
  IoVector pending;
  HostOffset pending_host;
  for (const WriteRun& run : plan.runs) {
    const GuestOffset run_end = run.guest + (run.clusters << geometry_.cluster_bits());
    const GuestOffset from = std::max(run.guest, plan.stored_from), to = std::min(run_end, plan.stored_to);
    const HostOffset host = run.host + (from - run.guest);
    if (pending.size() != 0 && host != pending_host + pending.size()) {
      COIMG_TRY(data_.co_pwritev(pending_host.v, pending));
      pending = IoVector();
    }
    if (pending.size() == 0) pending_host = host;
    pending.add(stored, from - plan.stored_from, to - from);
  }
  return data_.co_pwritev(pending_host.v, pending);
}

// --- link ------------------------------------------------------------------------------------------------------------

Result<void> Qcow2::link_and_release(WritePlan plan) {
  const bool needs_link = std::ranges::any_of(plan.runs, &WriteRun::needs_link);
  if (!needs_link) return {};
  DroppedReferences dropped;
  Result<void> linked;
  {
    CoWriteGuard guard(lock_);
    linked = link_plan_locked(plan, dropped);
  }
  if (!linked.ok()) abandon_plan(plan);  // what has been linked so far stays, and is complete
  auto released = drop_references(dropped, FreedSpace::kKeep);
  return linked.ok() ? released : linked;
}

}  // namespace coimg::qcow2
