// What an allocating write is about to do, and what it leaves behind. The functions are members of Qcow2.
#pragma once

#include <cstdint>
#include <vector>

#include "block/util/offsets.h"
#include "formats/qcow2/cluster_set.h"
#include "formats/qcow2/extent.h"
#include "formats/qcow2/format.h"

namespace coimg::qcow2 {

/// Guest clusters in a row whose host clusters are in a row as well.
struct WriteRun {
  GuestOffset guest;  ///< cluster aligned
  uint64_t clusters = 0;
  HostOffset host;          ///< cluster aligned
  bool fresh = false;       ///< the host clusters were allocated for this write
  bool needs_link = false;  ///< the L2 entries have to change
};

/// Where the data of a write goes.
///
/// Between planning and linking the clusters belong to the request, whose guest range is in flight exclusively; fresh
/// ones are freed by abandon_plan() or given to the L2 tables by link_plan_locked().
struct WritePlan {
  std::vector<WriteRun> runs;  ///< in guest order, without gaps
  /// What is stored: the data, and around it what has to be kept of the first and last cluster or subcluster. Behind
  /// the end of the disk that is zeros.
  GuestOffset stored_from, stored_to;
  /// The old mapping of [stored_from, data) and of what lies behind the data, as far as it is on the disk.
  std::vector<Extent> head, tail;

  /// Adds a run; it becomes part of the last one where it continues it.
  void append(const Geometry& geometry, WriteRun run);
  /// Which subclusters of a cluster are stored when this is linked. The entry's own place has been taken care of.
  [[nodiscard]] SubclusterMap map_after(const Geometry& geometry, GuestOffset cluster, L2Entry old) const;
};

/// References to host clusters that L2 entries no longer make.
class DroppedReferences {
 public:
  /// What `old` refers to and `replacement` does not.
  void add(const Geometry& geometry, L2Entry old, L2Entry replacement);
  void add_cluster(HostCluster cluster) { runs_.push_back({cluster, cluster + 1}); }
  [[nodiscard]] bool empty() const { return runs_.empty(); }
  /// One reference each; a cluster may be in several.
  [[nodiscard]] const std::vector<ClusterRun>& runs() const { return runs_; }

 private:
  std::vector<ClusterRun> runs_;
};

}  // namespace coimg::qcow2
