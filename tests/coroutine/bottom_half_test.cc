#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <malloc.h>
#include <signal.h>

#include <atomic>
#include <chrono>
#include <memory>
#include <thread>
#include <vector>

#include "coroutine/aio_context.h"
#include "coroutine/compiler.h"
#include "tests/coroutine/loop.h"

namespace coimg {
namespace {

using test::run_due;
using test::run_until;
using ::testing::ElementsAre;

AioContext& here() { return AioContext::current(); }

TEST(BottomHalfTest, RunsOncePerScheduleHoweverOftenThatWasCalled) {
  int runs = 0;
  auto bh = here().new_bottom_half([&] { ++runs; });
  run_due();
  EXPECT_EQ(runs, 0);
  bh->schedule();
  bh->schedule();
  EXPECT_EQ(runs, 0);
  EXPECT_TRUE(here().poll(false));
  EXPECT_EQ(runs, 1);
  EXPECT_FALSE(here().poll(false));
  bh->schedule();
  run_due();
  EXPECT_EQ(runs, 2);
}

TEST(BottomHalfTest, RunInTheOrderOfScheduling) {
  std::vector<int> order;
  std::vector<std::unique_ptr<BottomHalf>> halves;
  for (int i = 0; i < 4; ++i) halves.push_back(here().new_bottom_half([&order, i] { order.push_back(i); }));
  for (const int i : {2, 0, 3, 1}) halves[static_cast<size_t>(i)]->schedule();
  run_due();
  EXPECT_THAT(order, ElementsAre(2, 0, 3, 1));
}

TEST(BottomHalfTest, OneThatSchedulesItselfRunsOnceAnIteration) {
  int runs = 0;
  std::unique_ptr<BottomHalf> bh;
  bh = here().new_bottom_half([&] {
    if (++runs < 3) bh->schedule();
  });
  bh->schedule();
  here().poll(false);
  EXPECT_EQ(runs, 1);
  here().poll(true);
  EXPECT_EQ(runs, 2);
  run_due();
  EXPECT_EQ(runs, 3);
}

TEST(BottomHalfTest, CancelForgetsTheSchedule) {
  int runs = 0;
  auto bh = here().new_bottom_half([&] { ++runs; });
  bh->schedule();
  bh->cancel();
  EXPECT_FALSE(here().poll(false));
  EXPECT_EQ(runs, 0);
  bh->schedule();
  run_due();
  EXPECT_EQ(runs, 1);
}

TEST(BottomHalfTest, DestroyingItCancelsIt) {
  int runs = 0;
  auto bh = here().new_bottom_half([&] { ++runs; });
  bh->schedule();
  bh.reset();
  run_due();
  EXPECT_EQ(runs, 0);
}

TEST(BottomHalfTest, MayDestroyItselfAndThenRunANestedLoop) {
  auto token = std::make_shared<int>(1);
  int seen = 0;
  std::unique_ptr<BottomHalf> bh;
  bh = here().new_bottom_half([&seen, &bh, token] {
    bh.reset();
    run_due();  // takes the deleted one off its list, but must not free what runs
    seen = *token;
  });
  bh->schedule();
  run_due();
  EXPECT_EQ(seen, 1);
  EXPECT_EQ(token.use_count(), 1) << "the callback was not freed";
}

TEST(BottomHalfTest, MayDestroyAnotherThatIsDueInTheSameIteration) {
  bool second_ran = false;
  std::unique_ptr<BottomHalf> second = here().new_bottom_half([&] { second_ran = true; });
  auto first = here().new_bottom_half([&] { second.reset(); });
  first->schedule();
  second->schedule();
  run_due();
  EXPECT_FALSE(second_ran);
}

// The nested loop waits for what the outer one has already taken off the list.
TEST(BottomHalfTest, ANestedLoopRunsWhatTheOuterOneHasLeft) {
  bool second_ran = false;
  auto second = here().new_bottom_half([&] { second_ran = true; });
  auto first = here().new_bottom_half([&] { run_until([&] { return second_ran; }); });
  first->schedule();
  second->schedule();
  run_due();
  EXPECT_TRUE(second_ran);
}

TEST(BottomHalfTest, OneshotsRunOnceAndAreFreed) {
  auto token = std::make_shared<int>(0);
  here().schedule_oneshot([token] { ++*token; });
  run_due();
  run_due();
  EXPECT_EQ(*token, 1);
  EXPECT_EQ(token.use_count(), 1);
}

TEST(BottomHalfTest, AnIdleOneRunsSoonAndDoesNotCountAsProgress) {
  int runs = 0;
  auto bh = here().new_bottom_half([&] { ++runs; });
  bh->schedule_idle();
  const int64_t begin = clock_now_ns(ClockType::kMonotonic);
  EXPECT_FALSE(here().poll(true));
  EXPECT_EQ(runs, 1);
  EXPECT_LT(clock_now_ns(ClockType::kMonotonic) - begin, 1'000'000'000);
}

TEST(BottomHalfTest, AnIdleOneFromAnotherThreadDoesNotWaitUntilASleepingLoopWakesUp) {
  std::atomic<bool> ran{false};
  auto bh = here().new_bottom_half([&] { ran = true; });
  AioContext& context = here();
  std::thread other([&] {
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
    bh->schedule_idle();
    for (int ms = 0; ms < 5000 && !ran; ++ms) std::this_thread::sleep_for(std::chrono::milliseconds(1));
    EXPECT_TRUE(ran) << "the loop sleeps on";
    context.notify();
  });
  run_until([&] { return ran.load(); });
  other.join();
}

TEST(BottomHalfTest, SchedulingAnIdleOneMakesItUrgent) {
  int runs = 0;
  auto bh = here().new_bottom_half([&] { ++runs; });
  bh->schedule_idle();
  bh->schedule();
  bh->schedule_idle();
  EXPECT_TRUE(here().poll(true));
  EXPECT_EQ(runs, 1);
}

TEST(BottomHalfTest, SchedulingFromOtherThreadsWakesTheLoopAndLosesNothing) {
  constexpr int kThreads = 3;
  constexpr int kRounds = 3000;
  std::atomic<int> requested[kThreads] = {};
  int served[kThreads] = {};
  std::vector<std::unique_ptr<BottomHalf>> halves;
  for (int i = 0; i < kThreads; ++i) {
    halves.push_back(here().new_bottom_half([&requested, &served, i] { served[i] = requested[i].load(); }));
  }
  std::vector<std::thread> threads;
  for (int i = 0; i < kThreads; ++i) {
    threads.emplace_back([&, i] {
      for (int round = 1; round <= kRounds; ++round) {
        requested[i] = round;
        halves[static_cast<size_t>(i)]->schedule();
        if (round % 64 == 0) std::this_thread::yield();
      }
    });
  }
  // Without a lost wake-up this ends: the last schedule() of each thread comes after its last request.
  run_until([&] { return served[0] == kRounds && served[1] == kRounds && served[2] == kRounds; });
  for (auto& thread : threads) thread.join();
}

TEST(BottomHalfTest, EachOfManyOneshotsFromOtherThreadsRunsOnce) {
  constexpr int kThreads = 3;
  constexpr int kEach = 2000;
  int runs = 0;
  AioContext& context = here();
  std::vector<std::thread> threads;
  for (int i = 0; i < kThreads; ++i) {
    threads.emplace_back([&] {
      for (int n = 0; n < kEach; ++n) context.schedule_oneshot([&runs] { ++runs; });
    });
  }
  run_until([&] { return runs == kThreads * kEach; });
  for (auto& thread : threads) thread.join();
}

#if !COIMG_ASAN && !COIMG_TSAN  // which have allocators of their own
TEST(BottomHalfTest, SchedulingAndRunningAllocateNothing) {
  int runs = 0;
  std::vector<std::unique_ptr<BottomHalf>> halves;
  for (int i = 0; i < 1000; ++i) halves.push_back(here().new_bottom_half([&runs] { ++runs; }));
  run_due();
  const size_t before = ::mallinfo2().uordblks;
  for (const auto& half : halves) half->schedule();
  EXPECT_EQ(::mallinfo2().uordblks, before);
  run_due();
  EXPECT_EQ(::mallinfo2().uordblks, before);
  EXPECT_EQ(runs, 1000);
}
#endif

BottomHalf* signal_half = nullptr;

TEST(BottomHalfTest, MayBeScheduledFromASignalHandler) {
  bool ran = false;
  auto bh = here().new_bottom_half([&] { ran = true; });
  signal_half = bh.get();
  struct sigaction action = {};
  struct sigaction previous = {};
  action.sa_handler = [](int) { signal_half->schedule(); };
  ASSERT_EQ(::sigaction(SIGUSR1, &action, &previous), 0);
  const pthread_t loop_thread = ::pthread_self();
  std::thread sender([loop_thread] { ::pthread_kill(loop_thread, SIGUSR1); });
  run_until([&] { return ran; });
  sender.join();
  ::sigaction(SIGUSR1, &previous, nullptr);
}

TEST(BottomHalfTest, AHandleMayOutliveItsContext) {
  std::unique_ptr<BottomHalf> bh;
  {
    AioContext context;
    bh = context.new_bottom_half([] {});
    bh->schedule();
  }
  bh->schedule();
}

TEST(BottomHalfTest, NotifyEndsABlockingPollAlsoWhenItCameBefore) {
  here().notify();
  here().poll(true);  // would block for ever
  std::atomic<bool> stop{false};
  AioContext& context = here();
  std::thread other([&] {
    stop = true;
    context.notify();
  });
  while (!stop) here().poll(true);
  other.join();
}

}  // namespace
}  // namespace coimg
