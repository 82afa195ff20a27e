// Tests block/request_tracker.cc: who waits for whom.
#include "block/request_tracker.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <string>
#include <vector>

#include "coroutine/co_group.h"
#include "coroutine/main_loop.h"
#include "tests/support/let_others_run.h"

namespace coimg {
namespace {

using ::testing::ElementsAre;

class RequestTrackerTest : public ::testing::Test {
 protected:
  /// A coroutine that holds a range until it is told to go on, and writes down when it got it.
  void start(CoGroup& group, const char* name, uint64_t offset, uint64_t bytes, RangeMode mode) {
    group.start([this, name, offset, bytes, mode]() coroutine_fn {
      const TrackedRequest request(tracker_, offset, bytes, mode);
      running_.emplace_back(name);
      while (std::ranges::find(released_, name) == released_.end()) changed_.wait();
    });
  }
  void release(const char* name) coroutine_fn {
    released_.emplace_back(name);
    changed_.restart_all();
    let_others_run();
  }

  RequestTracker tracker_;
  CoQueue changed_;
  std::vector<std::string> running_, released_;
};

constexpr auto kShared = RangeMode::kShared;
constexpr auto kExclusive = RangeMode::kExclusive;

TEST_F(RequestTrackerTest, SharedRangesOverlapFreely) {
  run_in_main_loop([&]() coroutine_fn {
    CoGroup group;
    start(group, "a", 0, 100, kShared);
    start(group, "b", 50, 100, kShared);
    let_others_run();
    EXPECT_THAT(running_, ElementsAre("a", "b"));
    release("a");
    release("b");
    group.wait_all();
  });
}

TEST_F(RequestTrackerTest, AnExclusiveRangeWaitsForOverlapsAndOnlyForThem) {
  run_in_main_loop([&]() coroutine_fn {
    CoGroup group;
    start(group, "a", 0, 100, kShared);
    start(group, "overlapping", 99, 1, kExclusive);
    start(group, "adjacent", 100, 1, kExclusive);
    let_others_run();
    EXPECT_THAT(running_, ElementsAre("a", "adjacent"));
    release("a");
    EXPECT_THAT(running_, ElementsAre("a", "adjacent", "overlapping"));
    release("adjacent");
    release("overlapping");
    group.wait_all();
  });
}

TEST_F(RequestTrackerTest, ALaterSharedRangeDoesNotOvertakeAWaitingExclusiveOne) {
  run_in_main_loop([&]() coroutine_fn {
    CoGroup group;
    start(group, "a", 0, 100, kShared);
    start(group, "x", 0, 200, kExclusive);
    start(group, "late", 150, 10, kShared);
    let_others_run();
    EXPECT_THAT(running_, ElementsAre("a"));
    release("a");
    EXPECT_THAT(running_, ElementsAre("a", "x"));
    release("x");
    EXPECT_THAT(running_, ElementsAre("a", "x", "late"));
    release("late");
    group.wait_all();
  });
}

TEST_F(RequestTrackerTest, AReleasedRangeLetsOthersInBeforeItsScopeEnds) {
  run_in_main_loop([&]() coroutine_fn {
    CoGroup group;
    TrackedRequest mine(tracker_, 0, 10, kExclusive);
    start(group, "next", 0, 10, kExclusive);
    let_others_run();
    EXPECT_TRUE(running_.empty());
    mine.release();
    mine.release();
    let_others_run();
    EXPECT_THAT(running_, ElementsAre("next"));
    release("next");
    group.wait_all();
  });
}

TEST_F(RequestTrackerTest, DrainWaitsForAll) {
  run_in_main_loop([&]() coroutine_fn {
    CoGroup group;
    bool drained = false;
    start(group, "a", 0, 10, kShared);
    start(group, "b", 20, 10, kExclusive);
    let_others_run();
    group.start([&]() coroutine_fn {
      tracker_.drain();
      drained = true;
    });
    release("a");
    EXPECT_FALSE(drained);
    release("b");
    EXPECT_TRUE(drained);
    EXPECT_TRUE(tracker_.empty());
    group.wait_all();
  });
}

}  // namespace
}  // namespace coimg
