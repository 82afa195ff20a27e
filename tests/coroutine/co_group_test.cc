#include "coroutine/co_group.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <expected>
#include <memory>
#include <string>
#include <vector>

#include "coroutine/co_sleep.h"
#include "coroutine/main_loop.h"
#include "tests/coroutine/loop.h"

namespace coimg {
namespace {

TEST(CoGroupTest, WaitAllWaitsForEveryMember) {
  run_in_main_loop([]() coroutine_fn {
    CoGroup group;
    int ended = 0;
    for (int i = 0; i < 10; ++i) {
      group.start([&ended, i]() coroutine_fn {
        for (int pauses = 0; pauses < i; ++pauses) test::pause();
        ++ended;
      });
    }
    EXPECT_EQ(group.running(), 10U);
    group.wait_all();
    EXPECT_EQ(ended, 10);
    EXPECT_EQ(group.running(), 0U);
  });
}

TEST(CoGroupTest, AnEmptyGroupIsNotWaitedFor) {
  run_in_main_loop([]() coroutine_fn {
    CoGroup group;
    group.wait_all();
    group.wait_below(1);
  });
}

TEST(CoGroupTest, MembersRunWhenTheStarterYieldsInTheOrderOfStarting) {
  run_in_main_loop([]() coroutine_fn {
    CoGroup group;
    std::vector<int> order;
    for (int i = 0; i < 5; ++i) group.start([&order, i]() coroutine_fn { order.push_back(i); });
    EXPECT_TRUE(order.empty());
    group.wait_all();
    EXPECT_EQ(order, (std::vector{0, 1, 2, 3, 4}));
  });
}

TEST(CoGroupTest, WaitBelowBoundsTheMembers) {
  run_in_main_loop([]() coroutine_fn {
    CoGroup group;
    unsigned most = 0;
    for (int i = 0; i < 50; ++i) {
      group.wait_below(4);
      group.start([&, i]() coroutine_fn {
        most = std::max(most, group.running());
        co_sleep_ns(ClockType::kMonotonic, i % 3 * 10'000);
      });
    }
    group.wait_all();
    EXPECT_EQ(most, 4U);
  });
}

TEST(CoGroupTest, SeveralWaitersWithDifferentLimits) {
  run_in_main_loop([]() coroutine_fn {
    CoGroup members;
    CoGroup waiters;
    for (int i = 0; i < 6; ++i) {
      members.start([i]() coroutine_fn {
        for (int pauses = 0; pauses <= 3 * i; ++pauses) test::pause();
      });
    }
    std::vector<unsigned> limits;
    for (const unsigned limit : {1U, 5U, 3U}) {
      waiters.start([&, limit]() coroutine_fn {
        members.wait_below(limit);
        EXPECT_LT(members.running(), limit);
        limits.push_back(limit);
      });
    }
    waiters.wait_all();
    EXPECT_EQ(limits, (std::vector{5U, 3U, 1U}));
    members.wait_all();
  });
}

TEST(CoGroupTest, MembersMayStartMembers) {
  run_in_main_loop([]() coroutine_fn {
    CoGroup group;
    int ended = 0;
    group.start([&]() coroutine_fn {
      group.start([&]() coroutine_fn {
        group.start([&]() coroutine_fn { ++ended; });
        ++ended;
      });
      ++ended;
    });
    group.wait_all();
    EXPECT_EQ(ended, 3);
  });
}

TEST(CoGroupTest, StopIsSeenByMembers) {
  run_in_main_loop([]() coroutine_fn {
    CoGroup group;
    int rounds = 0;
    group.start([&]() coroutine_fn {
      while (!group.should_stop()) {
        ++rounds;
        test::pause();
      }
    });
    group.start([&]() coroutine_fn {
      while (rounds < 3) test::pause();
      group.stop();
    });
    group.wait_all();
    EXPECT_TRUE(group.should_stop());
    EXPECT_GE(rounds, 3);
  });
}

TEST(CoGroupTest, BodiesAreGoneWhenTheWaitEnds) {
  run_in_main_loop([]() coroutine_fn {
    const auto resource = std::make_shared<int>(1);
    CoGroup group;
    for (int i = 0; i < 3; ++i) group.start([resource]() coroutine_fn { test::pause(); });
    EXPECT_EQ(resource.use_count(), 4);
    group.wait_all();
    EXPECT_EQ(resource.use_count(), 1);
  });
}

TEST(CoGroupTest, TheGroupMayGoRightAfterTheWait) {
  run_in_main_loop([]() coroutine_fn {
    for (int i = 0; i < 100; ++i) {
      auto group = std::make_unique<CoGroup>();
      group->start([]() coroutine_fn { test::pause(); });
      group->wait_all();
      group.reset();
    }
  });
}

TEST(CoGroupTest, StopWakesThoseThatPause) {
  run_in_main_loop([]() coroutine_fn {
    CoGroup group;
    bool stopped = false;
    group.start([&]() coroutine_fn { stopped = group.pause_until(Deadline::never()); });
    group.start([&]() coroutine_fn {
      EXPECT_FALSE(group.pause_until(Deadline::after(ClockType::kMonotonic, 1000)));
      group.stop();
    });
    group.wait_all();
    EXPECT_TRUE(stopped);
  });
}

using Outcome = std::expected<void, std::string>;

TEST(CoTryGroupTest, AllSucceed) {
  run_in_main_loop([]() coroutine_fn {
    CoTryGroup<Outcome> group;
    for (int i = 0; i < 3; ++i) group.start([]() coroutine_fn -> Outcome { return {}; });
    EXPECT_TRUE(group.wait_all().has_value());
    EXPECT_FALSE(group.should_stop());
  });
}

TEST(CoTryGroupTest, TheFirstErrorWinsAndTheRestAreToldToStop) {
  run_in_main_loop([]() coroutine_fn {
    CoTryGroup<Outcome> group;
    group.start([&]() coroutine_fn -> Outcome {
      while (!group.pause_until(Deadline::never())) {
      }
      return std::unexpected("stopped");
    });
    group.start([]() coroutine_fn -> Outcome {
      test::pause();
      return std::unexpected("disk full");
    });
    EXPECT_FALSE(group.wait_below(2));
    const Outcome outcome = group.wait_all();
    ASSERT_FALSE(outcome.has_value());
    EXPECT_EQ(outcome.error(), "disk full");
  });
}

TEST(CoTryGroupTest, WaitBelowEndsWithTheFirstErrorThoughTheRestGoOn) {
  run_in_main_loop([]() coroutine_fn {
    CoTryGroup<Outcome> group;
    bool stubborn = true;
    for (int i = 0; i < 3; ++i) {
      group.start([&]() coroutine_fn -> Outcome {
        while (stubborn) test::pause();
        return {};
      });
    }
    group.start([]() coroutine_fn -> Outcome { return std::unexpected("disk full"); });
    CoGroup watch;
    watch.start([&]() coroutine_fn {
      for (int i = 0; i < 100; ++i) test::pause();
      stubborn = false;
    });
    EXPECT_FALSE(group.wait_below(2));
    EXPECT_TRUE(stubborn) << "it waited for the others";
    EXPECT_EQ(group.running(), 3U);
    EXPECT_FALSE(group.wait_below(1)) << "and so does each later one";
    EXPECT_FALSE(group.wait_all().has_value());
    watch.wait_all();
  });
}

TEST(CoGroupDeathTest, DestroyingOneWithMembersAborts) {
  EXPECT_DEATH(
      {
        CoGroup group;
        group.start([]() coroutine_fn {});
      },
      "CoGroup destroyed while 1 of its members run");
}

}  // namespace
}  // namespace coimg
