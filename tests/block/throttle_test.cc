// Tests block/throttle.cc on a clock that the test moves.
#include "block/throttle.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <vector>

#include "coroutine/aio_context.h"
#include "coroutine/co_group.h"
#include "coroutine/main_loop.h"
#include "tests/support/let_others_run.h"

namespace coimg {
namespace {

using ::testing::ElementsAre;

constexpr int64_t kSecond = 1'000'000'000;

void advance(int64_t ns) coroutine_fn {
  AioContext::current().advance_virtual_clock(ns);
  let_others_run();
}

TEST(RateLimiter, LetsALargeRequestThroughAndMakesTheNextOnePayForIt) {
  run_in_main_loop([&]() coroutine_fn {
    RateLimiter limiter(1000, ClockType::kVirtual);
    std::vector<int> passed;
    CoGroup group;
    for (int i = 1; i <= 3; ++i) {
      group.start([&, i]() coroutine_fn {
        limiter.take(2000);
        passed.push_back(i);
      });
    }
    advance(0);
    EXPECT_THAT(passed, ElementsAre(1));
    advance(2 * kSecond - 1);
    EXPECT_THAT(passed, ElementsAre(1));
    advance(1);
    EXPECT_THAT(passed, ElementsAre(1, 2));
    advance(2 * kSecond);
    EXPECT_THAT(passed, ElementsAre(1, 2, 3));
    group.wait_all();
  });
}

TEST(RateLimiter, SavesUpNoMoreThanTheBucketHolds) {
  run_in_main_loop([&]() coroutine_fn {
    RateLimiter limiter(1'000'000, ClockType::kVirtual);
    advance(3600 * kSecond);
    // An hour of rest gives the tenth of a second that the bucket holds, and the one that may overdraw.
    unsigned passed = 0;
    CoGroup group;
    group.start([&]() coroutine_fn {
      for (int i = 0; i < 4; ++i) {
        limiter.take(100'000);
        ++passed;
      }
    });
    advance(0);
    EXPECT_EQ(passed, 2u);
    advance(kSecond / 10);
    EXPECT_EQ(passed, 3u);
    advance(kSecond / 10);
    group.wait_all();
    EXPECT_EQ(passed, 4u);
  });
}

TEST(RateLimiter, SurvivesRequestsOfAnySize) {
  run_in_main_loop([&]() coroutine_fn {
    RateLimiter limiter(1, ClockType::kVirtual);
    limiter.take(UINT64_MAX);  // the first one passes
    RateLimiter fast(UINT64_MAX);
    for (int i = 0; i < 1000; ++i) fast.take(uint64_t{1} << 40);
  });
}

TEST(RateLimiter, KeepsTheRateOnTheRealClock) {
  run_in_main_loop([&]() coroutine_fn {
    const int64_t start = clock_now_ns(ClockType::kMonotonic);
    RateLimiter limiter(100 << 20);
    for (int i = 0; i <= 10; ++i) limiter.take(1 << 20);
    const int64_t elapsed = clock_now_ns(ClockType::kMonotonic) - start;
    EXPECT_GE(elapsed, kSecond / 10 - kSecond / 1000);  // 10 MiB at 100 MiB/s; the last one is not waited for
    EXPECT_LT(elapsed, 5 * kSecond);
  });
}

}  // namespace
}  // namespace coimg
