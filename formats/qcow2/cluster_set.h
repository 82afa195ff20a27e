// ClusterSet: a set of host clusters, kept as sorted runs. No I/O.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <vector>

#include "block/util/offsets.h"

namespace coimg::qcow2 {

/// Host clusters [first, end).
struct ClusterRun {
  HostCluster first, end;
  [[nodiscard]] ClusterCount count() const { return ClusterCount(end - first); }
  friend bool operator==(const ClusterRun&, const ClusterRun&) = default;
};

/// A set whose neighbours are merged, so that it stays small when its members lie together. Lookups are logarithmic;
/// changes at the end, where images grow, are cheap.
class ClusterSet {
 public:
  /// Adds [first, first + count); what is in already stays.
  void insert(HostCluster first, ClusterCount count);
  /// Removes [first, first + count); what is not in does not matter.
  void erase(HostCluster first, ClusterCount count);
  void clear();

  /// The part of [first, first + count) that is in the set and comes first; nothing when none is.
  [[nodiscard]] std::optional<ClusterRun> first_overlap(HostCluster first, ClusterCount count) const;

  /// Where the first `count` clusters in a row, from `start` on, are that are not in the set.
  [[nodiscard]] HostCluster first_gap(HostCluster start, ClusterCount count) const;

  [[nodiscard]] bool empty() const { return runs_.empty(); }
  [[nodiscard]] ClusterCount size() const { return ClusterCount(size_); }
  [[nodiscard]] const std::vector<ClusterRun>& runs() const { return runs_; }

 private:
  /// Index of the first run that ends behind `cluster`.
  [[nodiscard]] size_t run_ending_behind(HostCluster cluster) const;

  std::vector<ClusterRun> runs_;  ///< sorted, not touching each other
  uint64_t size_ = 0;
};

}  // namespace coimg::qcow2
