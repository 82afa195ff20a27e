#include "coroutine/big_lock.h"

#include <gtest/gtest.h>

#include <atomic>
#include <thread>
#include <vector>

#include "coroutine/main_loop.h"
#include "tests/coroutine/loop.h"

namespace coimg {
namespace {

class BigLockTest : public testing::Test {
 protected:
  void SetUp() override { MainLoop::init(); }
};

using BigLockDeathTest = BigLockTest;

TEST_F(BigLockTest, TheMainThreadHoldsItAndGivesItUpWhileItWaits) {
  EXPECT_TRUE(big_lock.held());
  bool done = false;  // plain: the lock guards it
  std::thread outside([&] {
    EXPECT_FALSE(big_lock.held());
    const BigLockGuard guard;
    EXPECT_TRUE(big_lock.held());
    done = true;
    MainLoop::notify_event();
  });
  while (!done) MainLoop::wait(false);
  outside.join();
  EXPECT_TRUE(big_lock.held());
}

// The counter is not atomic: the sanitizer, or a wrong sum, shows when two are inside.
TEST_F(BigLockTest, ThreadsOutsideAndCallbacksOfTheLoopExcludeEachOther) {
  constexpr int kThreads = 3;
  constexpr int kRounds = 300;
  int64_t counter = 0;
  int outside_rounds = 0;
  std::vector<std::thread> threads;
  for (int i = 0; i < kThreads; ++i) {
    threads.emplace_back([&] {
      for (int round = 0; round < kRounds; ++round) {
        const BigLockGuard guard;
        ++counter;
        ++outside_rounds;
      }
    });
  }
  int64_t inside_rounds = 0;
  // The bottom half is always due, so the loop never sleeps: it has to let the others in all the same.
  std::unique_ptr<BottomHalf> busy = MainLoop::context().new_bottom_half([&] {
    ++counter;
    ++inside_rounds;
    busy->schedule();
  });
  busy->schedule();
  while (outside_rounds < kThreads * kRounds) MainLoop::wait(false);
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(counter, inside_rounds + kThreads * kRounds);
}

TEST_F(BigLockDeathTest, TakingItTwiceAborts) {
  EXPECT_DEATH(
      {
        void (BigLock::*lock)() = &BigLock::lock;  // hides from the static check what this tests at run time
        (big_lock.*lock)();
      },
      "takes the big lock that it already holds");
}

TEST_F(BigLockDeathTest, ACoroutineMayNotTakeIt) {
  EXPECT_DEATH(test::start(
                   []() coroutine_fn {
                     void (BigLock::*lock)() = &BigLock::lock;
                     (big_lock.*lock)();
                   },
                   "impatient"),
               "coroutine 'impatient' takes the big lock");
}

TEST_F(BigLockDeathTest, AssertLockedNoticesAThreadOutside) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  EXPECT_DEATH(std::thread([] { big_lock.assert_locked(); }).join(), "needs the big lock and does not hold it");
}

}  // namespace
}  // namespace coimg
