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

/// What a write can do with a guest cluster as it is.
enum class Target { kInPlace, kReuse, kAllocate };

Target classify(L2Entry entry) {
  if (!entry.copied()) return Target::kAllocate;
  if (entry.type() == ClusterType::kNormal) return Target::kInPlace;
  if (entry.type() == ClusterType::kZeroAllocated) return Target::kReuse;
  return Target::kAllocate;
}

}  // namespace

Result<void> Qcow2::check_usable() const {
  if (failed_) return Error(EIO, "image is corrupt; no further requests are possible");
  return {};
}

Result<void> Qcow2::pwritev(uint64_t offset, const IoVector& iov, const WriteOptions& options) {
  COIMG_TRY(check_usable());
  const GuestOffset guest(offset);
  {
    const TrackedRequest request(in_flight_, offset, iov.size(), RangeMode::kShared);
    std::vector<Extent> extents;
    if (COIMG_TRY(map_in_place(guest, iov.size(), extents))) {
      if (options.placement) options.placement->finish();
      uint64_t done = 0;
      for (const Extent& extent : extents) {
        COIMG_TRY(file_.co_pwritev(extent.host.v, iov.slice(done, extent.bytes)));
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
  return write_allocating(guest, iov, options.placement);
}

/// Whether the whole range can be written where it is; then `extents` says where that is.
Result<bool> Qcow2::map_in_place(GuestOffset offset, uint64_t bytes, std::vector<Extent>& extents) {
  CoReadGuard guard(lock_);
  for (uint64_t done = 0; done < bytes;) {
    const Extent extent = COIMG_TRY(map_locked(offset + done, bytes - done));
    if (!extent.writable_in_place) return false;
    COIMG_TRY(check_overlap_locked(extent.host, extent.bytes));
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
  if (first < offset) plan.head = COIMG_TRY(map_locked(first, offset - first));
  const uint64_t tail_end = std::min(end.v, virtual_size_);
  if (data_end.v < tail_end) plan.tail = COIMG_TRY(map_locked(data_end, tail_end - data_end.v));

  auto extended = extend_plan_locked(first, end, plan);
  if (!extended.ok()) {
    abandon_plan(plan);
    return std::move(extended).error();
  }
  return plan;
}

/// Fills the plan with runs for [first, end), both cluster aligned. After an error it holds what is to be abandoned.
Result<void> Qcow2::extend_plan_locked(GuestOffset first, GuestOffset end, WritePlan& plan) {
  const uint64_t cluster_size = geometry_.cluster_size();
  const uint64_t per_slice = l2_cache_->slice_bytes() / sizeof(be64);
  GuestOffset allocate_from = first;  // what lies between it and `guest` needs new clusters
  for (GuestOffset guest = first; guest < end;) {
    const HostOffset table = COIMG_TRY(ensure_l2_table_locked(guest));
    auto pin = COIMG_TRY(load_l2_slice_locked(table, geometry_.l2_index(guest)));
    const auto* const entries = reinterpret_cast<const be64*>(pin.data());
    uint64_t index = geometry_.l2_index(guest) % per_slice;
    for (; index < per_slice && guest < end; ++index, guest += cluster_size) {
      const L2Entry entry(entries[index]);
      COIMG_TRY(check_entry_locked(guest, entry));
      const Target target = classify(entry);
      if (target == Target::kAllocate) continue;

      COIMG_TRY(allocate_runs_locked(allocate_from, (guest - allocate_from) / cluster_size, plan));
      allocate_from = guest + cluster_size;
      COIMG_TRY(check_overlap_locked(entry.host(), cluster_size));
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

/// Writes the data to where the plan says, in one request for each stretch of the file. New clusters are written as a
/// whole; what the guest had in them around the data is read first.
Result<void> Qcow2::write_planned(const WritePlan& plan, GuestOffset offset, const IoVector& iov) {
  const GuestOffset data_end = offset + iov.size();
  const GuestOffset first = plan.runs.front().guest;
  const WriteRun& last_run = plan.runs.back();
  const GuestOffset end = last_run.guest + (last_run.clusters << geometry_.cluster_bits());

  AlignedBuffer head, tail;
  if (first < offset && plan.runs.front().needs_link) {
    head = AlignedBuffer(offset - first);
    COIMG_TRY(read_extent(first, plan.head, IoVector(head.span())));
  }
  if (data_end < end && last_run.needs_link) {
    tail = AlignedBuffer::zeroed(end - data_end);
    if (plan.tail.bytes) {
      COIMG_TRY(read_extent(data_end, plan.tail, IoVector(tail.span().first(plan.tail.bytes))));
    }
  }

  IoVector pending;
  HostOffset pending_host;
  for (const WriteRun& run : plan.runs) {
    const GuestOffset run_end = run.guest + (run.clusters << geometry_.cluster_bits());
    const GuestOffset from = std::max(run.guest, offset), to = std::min(run_end, data_end);
    const bool with_head = from > run.guest && run.needs_link;
    const HostOffset host = with_head ? run.host : run.host + (from - run.guest);
    if (pending.size() != 0 && host != pending_host + pending.size()) {
      COIMG_TRY(file_.co_pwritev(pending_host.v, pending));
      pending = IoVector();
    }
    if (pending.size() == 0) pending_host = host;
    if (with_head) pending.add(head.span());
    pending.add(iov, from - offset, to - from);
    if (to < run_end && run.needs_link) pending.add(tail.span());
  }
  return file_.co_pwritev(pending_host.v, pending);
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
