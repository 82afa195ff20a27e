#include "formats/qcow2/cluster_set.h"

#include <gtest/gtest.h>

#include <random>
#include <set>

namespace coimg::qcow2 {
namespace {

ClusterRun run(uint64_t first, uint64_t end) { return {HostCluster(first), HostCluster(end)}; }

TEST(ClusterSet, MergesWhatTouches) {
  ClusterSet set;
  set.insert(HostCluster(4), ClusterCount(2));
  set.insert(HostCluster(8), ClusterCount(2));
  EXPECT_EQ(set.runs(), (std::vector{run(4, 6), run(8, 10)}));
  set.insert(HostCluster(6), ClusterCount(2));
  EXPECT_EQ(set.runs(), std::vector{run(4, 10)});
  EXPECT_EQ(set.size().v, 6u);
}

TEST(ClusterSet, ErasingFromTheMiddleLeavesBothEnds) {
  ClusterSet set;
  set.insert(HostCluster(0), ClusterCount(10));
  set.erase(HostCluster(3), ClusterCount(4));
  EXPECT_EQ(set.runs(), (std::vector{run(0, 3), run(7, 10)}));
  EXPECT_EQ(set.first_overlap(HostCluster(1), ClusterCount(20)), run(1, 3));
  EXPECT_EQ(set.first_overlap(HostCluster(3), ClusterCount(4)), std::nullopt);
  EXPECT_EQ(set.first_overlap(HostCluster(3), ClusterCount(5)), run(7, 8));
}

TEST(ClusterSet, BehavesLikeASetOfNumbers) {
  std::mt19937_64 random(7);
  std::set<uint64_t> model;
  ClusterSet set;
  for (int step = 0; step < 20000; ++step) {
    const uint64_t first = random() % 64, count = random() % 9;
    const bool insert = random() % 2;
    if (insert) {
      set.insert(HostCluster(first), ClusterCount(count));
    } else {
      set.erase(HostCluster(first), ClusterCount(count));
    }
    for (uint64_t i = first; i < first + count; ++i) insert ? void(model.insert(i)) : void(model.erase(i));

    ASSERT_EQ(set.size().v, model.size());
    uint64_t total = 0, previous_end = 0;
    for (const ClusterRun& part : set.runs()) {
      ASSERT_LT(part.first, part.end);
      ASSERT_TRUE(total == 0 || part.first.v > previous_end) << "runs touch";
      for (uint64_t i = part.first.v; i < part.end.v; ++i) ASSERT_TRUE(model.contains(i));
      total += part.count().v;
      previous_end = part.end.v;
    }
    ASSERT_EQ(total, model.size());
    const uint64_t at = random() % 70;
    const auto found = model.lower_bound(at);
    const auto overlap = set.first_overlap(HostCluster(at), ClusterCount(5));
    ASSERT_EQ(overlap.has_value(), found != model.end() && *found < at + 5);
    if (overlap) {
      ASSERT_EQ(overlap->first.v, *found);
    }
    const uint64_t wanted = random() % 6 + 1;
    uint64_t gap = at;
    for (uint64_t i = gap; i < gap + wanted; ++i) {
      if (model.contains(i)) gap = i + 1;
    }
    ASSERT_EQ(set.first_gap(HostCluster(at), ClusterCount(wanted)).v, gap);
  }
}

}  // namespace
}  // namespace coimg::qcow2
