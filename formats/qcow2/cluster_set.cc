#include "formats/qcow2/cluster_set.h"

#include <algorithm>

namespace coimg::qcow2 {

size_t ClusterSet::run_ending_behind(HostCluster cluster) const {
  const auto run = std::upper_bound(runs_.begin(), runs_.end(), cluster,
                                    [](HostCluster value, const ClusterRun& other) { return value < other.end; });
  return static_cast<size_t>(run - runs_.begin());
}

void ClusterSet::insert(HostCluster first, ClusterCount count) {
  if (count.v == 0) return;
  ClusterRun merged{first, first + count.v};

  // All runs that overlap or touch the new one become part of it. One that ends exactly at `first` touches it.
  const size_t begin = first.v == 0 ? 0 : run_ending_behind(first - 1);
  size_t end = begin;
  for (; end < runs_.size() && runs_[end].first <= merged.end; ++end) {
    merged.first = std::min(merged.first, runs_[end].first);
    merged.end = std::max(merged.end, runs_[end].end);
    size_ -= runs_[end].count().v;
  }
  size_ += merged.count().v;
  if (begin == end) {
    runs_.insert(runs_.begin() + static_cast<ptrdiff_t>(begin), merged);
    return;
  }
  runs_[begin] = merged;
  runs_.erase(runs_.begin() + static_cast<ptrdiff_t>(begin) + 1, runs_.begin() + static_cast<ptrdiff_t>(end));
}

void ClusterSet::erase(HostCluster first, ClusterCount count) {
  if (count.v == 0) return;
  const HostCluster end = first + count.v;
  size_t index = run_ending_behind(first);
  while (index < runs_.size() && runs_[index].first < end) {
    const ClusterRun old = runs_[index];
    const ClusterRun before{old.first, std::max(old.first, first)};
    const ClusterRun behind{std::min(old.end, end), old.end};
    size_ -= old.count().v - before.count().v - behind.count().v;

    const bool keep_before = before.count().v != 0, keep_behind = behind.count().v != 0;
    if (keep_before && keep_behind) {
      runs_[index] = before;
      runs_.insert(runs_.begin() + static_cast<ptrdiff_t>(index) + 1, behind);
      return;
    }
    if (keep_before || keep_behind) {
      runs_[index++] = keep_before ? before : behind;
    } else {
      runs_.erase(runs_.begin() + static_cast<ptrdiff_t>(index));
    }
  }
}

HostCluster ClusterSet::first_gap(HostCluster start, ClusterCount count) const {
  for (size_t index = run_ending_behind(start); index < runs_.size(); ++index) {
    const ClusterRun& run = runs_[index];
    if (run.first > start && run.first - start >= count.v) break;
    start = run.end;
  }
  return start;
}

void ClusterSet::clear() {
  runs_.clear();
  size_ = 0;
}

std::optional<ClusterRun> ClusterSet::first_overlap(HostCluster first, ClusterCount count) const {
  const HostCluster end = first + count.v;
  const size_t index = run_ending_behind(first);
  if (index == runs_.size() || runs_[index].first >= end) return std::nullopt;
  return ClusterRun{std::max(first, runs_[index].first), std::min(end, runs_[index].end)};
}

}  // namespace coimg::qcow2
