// Preallocation of space that is added to a disk.
//
// A host cluster may have been used before, or lie in the middle of the file: it is made to read as zeros, in the way
// that the mode asks for, before an L2 entry shows it. The new entries lie behind the end of the disk until its size is
// stored, so that a crash leaves the old disk.
//
// Format: qcow2, section "Preallocation".
#include <spdlog/spdlog.h>

#include <algorithm>

#include "block/util/buffer.h"
#include "block/util/math.h"
#include "formats/qcow2/qcow2.h"

namespace coimg::qcow2 {

Result<void> Qcow2::preallocate_clusters(GuestOffset first, uint64_t clusters, Preallocation preallocation) {
  Result<void> outcome;
  for (uint64_t done = 0; outcome.ok() && done < clusters;) {
    const GuestOffset guest = first + (done << geometry_.cluster_bits());
    const uint64_t step = std::min(clusters - done, geometry_.l2_entries() - geometry_.l2_index(guest));
    outcome = preallocate_table(guest, step, preallocation);
    done += step;
  }
  if (outcome.ok()) return {};
  const auto undone = rewrite_entries(first, clusters, MissingTables::kSkip, FreedSpace::kDiscard,
                                      [](uint64_t, L2Entry) { return L2Entry(); });
  if (!undone.ok()) spdlog::warn("clusters behind the end of the disk stay allocated: {}", undone.error().message());
  return outcome;
}

/// The same for clusters that one L2 table maps.
Result<void> Qcow2::preallocate_table(GuestOffset first, uint64_t clusters, Preallocation preallocation) {
  WritePlan plan;
  plan.stored_from = first;
  plan.stored_to = first + (clusters << geometry_.cluster_bits());
  Result<void> outcome;
  {
    CoWriteGuard guard(lock_);
    outcome = allocate_runs_locked(first, clusters, plan);
  }
  for (const WriteRun& run : plan.runs) {
    if (outcome.ok()) outcome = reserve_run(run, preallocation);
  }
  DroppedReferences dropped;
  if (outcome.ok()) {
    CoWriteGuard guard(lock_);
    outcome = link_plan_locked(plan, dropped);
  }
  if (!outcome.ok()) abandon_plan(plan);
  return outcome;
}

/// Makes host clusters read as zeros: as holes, as space without data, or as zeros that are stored.
Result<void> Qcow2::reserve_run(const WriteRun& run, Preallocation preallocation) {
  if (geometry_.external_data()) return {};  // has grown in that mode
  const uint64_t bytes = run.clusters << geometry_.cluster_bits();
  if (preallocation != Preallocation::kFull) {
    return file_.co_pwrite_zeroes(run.host.v, bytes, {.may_unmap = preallocation == Preallocation::kMetadata});
  }
  const AlignedBuffer zeros = AlignedBuffer::zeroed(std::min(bytes, kMiB));
  for (uint64_t done = 0; done < bytes;) {
    const uint64_t step = std::min(bytes - done, zeros.size());
    COIMG_TRY(file_.co_pwrite(run.host.v + done, zeros.span().first(step)));
    done += step;
  }
  return {};
}

}  // namespace coimg::qcow2
