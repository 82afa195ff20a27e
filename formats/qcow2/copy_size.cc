// How long the file of a copy becomes, to the byte: what will be written is gone through, and what that allocates.
//
// The copy writes in guest order, whatever is read first, so its layout can be told beforehand; see
// block/placement.h. The allocations are those of Qcow2::plan_write_locked() for clusters that nothing maps yet.
//
// Format: qcow2, sections "Fresh layout", "Allocation search".
#include <algorithm>
#include <vector>

#include "block/copy_forecast.h"
#include "block/util/math.h"
#include "formats/qcow2/create.h"
#include "formats/qcow2/file_growth.h"

namespace coimg::qcow2 {

namespace {

class CopySize {
 public:
  explicit CopySize(const CreatePlan& plan)
      : plan_(plan),
        geometry_(plan.header.geometry()),
        growth_(geometry_, plan.layout),
        has_table_(plan.layout.l1_entries, plan.preallocated) {}

  Result<void> note_write(uint64_t offset, uint64_t bytes) {
    const GuestOffset first(geometry_.cluster_down(offset)), end(geometry_.cluster_up(offset + bytes));
    if (plan_.preallocated) {
      if (!geometry_.external_data()) growth_.extend_to(stored_end(preallocated_host(end - 1), end - 1));
      return {};
    }
    COIMG_TRY(place_tables(first, end));
    return geometry_.external_data() ? Result<void>() : place_data(first, end);
  }

  /// With a data file, which ends where the disk does.
  [[nodiscard]] uint64_t bytes() const {
    return growth_.file_bytes() + (geometry_.external_data() ? plan_.header.size : 0);
  }

 private:
  Result<void> place_tables(GuestOffset first, GuestOffset end) {
    for (uint64_t index = geometry_.l1_index(first); index <= geometry_.l1_index(end - 1); ++index) {
      if (has_table_[index]) continue;
      const HostCluster table = COIMG_TRY(growth_.allocate(ClusterCount(1)));
      growth_.extend_to(geometry_.host_offset(table + 1));
      has_table_[index] = true;
    }
    return {};
  }

  /// One write's clusters, each run behind the one before where that is free.
  Result<void> place_data(GuestOffset first, GuestOffset end) {
    HostCluster behind;
    for (uint64_t left = (end - first) >> geometry_.cluster_bits(); left > 0;) {
      const ClusterCount wanted(std::min(left, geometry_.refcounts_per_block()));
      ClusterCount taken;
      if (behind.v != 0) taken = COIMG_TRY(growth_.allocate_at(behind, wanted));
      if (taken.v == 0) {
        behind = COIMG_TRY(growth_.allocate(wanted));
        taken = wanted;
      }
      behind += taken.v;
      left -= taken.v;
      const GuestOffset guest = end - (left << geometry_.cluster_bits());  // where the run ends
      growth_.extend_to(stored_end(geometry_.host_offset(behind - 1), guest - 1));
    }
    return {};
  }

  [[nodiscard]] HostOffset preallocated_host(GuestOffset guest) const {
    const uint64_t index = geometry_.l2_index(guest);
    return plan_.layout.data[geometry_.l1_index(guest)] + (index << geometry_.cluster_bits());
  }

  /// Where storing the cluster of `guest`, which lies at `host`, ends: of the disk's last one not all subclusters are.
  [[nodiscard]] HostOffset stored_end(HostOffset host, GuestOffset guest) const {
    const uint64_t start = geometry_.cluster_down(guest.v);
    if (!geometry_.extended_l2()) return host + geometry_.cluster_size();
    const uint64_t on_disk = std::min(plan_.header.size - start, geometry_.cluster_size());
    return host + align_up(on_disk, geometry_.state_unit());
  }

  const CreatePlan& plan_;
  const Geometry geometry_;
  FileGrowth growth_;
  std::vector<bool> has_table_;  ///< by L1 index
};

}  // namespace

Result<uint64_t> co_copy_bytes(const CreateOptions& options, BlockNode* source, bool read_data) {
  const CreatePlan plan = COIMG_TRY(plan_image(options));
  CopySize size(plan);
  if (source != nullptr) {
    COIMG_TRY(co_forecast_copy(*source, plan.header.geometry().cluster_size(), read_data,
                               [&size](uint64_t offset, uint64_t bytes) { return size.note_write(offset, bytes); }));
  }
  return size.bytes();
}

}  // namespace coimg::qcow2
