#include "coroutine/big_lock.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <cstdlib>
#include <functional>
#include <memory>
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

/// Runs `change` in another thread, under the lock and while the main loop sleeps, then waits until `served`.
template <typename Change>
void expect_served_after(Change change, const std::atomic<bool>& served) {
  std::thread outside([&] {
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
    {
      const BigLockGuard guard;
      change();
    }
    for (int ms = 0; ms < 5000 && !served; ++ms) std::this_thread::sleep_for(std::chrono::milliseconds(1));
    EXPECT_TRUE(served) << "the loop sleeps on";
    MainLoop::notify_event();
  });
  MainLoop::wait(false);
  for (int i = 0; i < 10 && !served; ++i) MainLoop::wait(false);
  outside.join();
}

TEST_F(BigLockTest, AnFdHandlerThatIsAddedWhileTheLoopSleepsIsServed) {
  int fds[2];
  ASSERT_EQ(::pipe(fds), 0);
  ASSERT_EQ(::write(fds[1], "x", 1), 1);
  std::atomic<bool> served{false};
  const auto on_readable = [&] {
    served = true;
    MainLoop::set_fd_handler(fds[0], nullptr, nullptr);
  };
  expect_served_after([&] { MainLoop::set_fd_handler(fds[0], on_readable, nullptr); }, served);
  ::close(fds[0]);
  ::close(fds[1]);
}

TEST_F(BigLockTest, ATimerThatIsArmedWhileTheLoopSleepsFires) {
  for (const ClockType clock : {ClockType::kMonotonic, ClockType::kVirtual}) {
    std::atomic<bool> served{false};
    Timer timer(MainLoop::context(), clock, [&] { served = true; });
    expect_served_after([&] { timer.arm_after(0); }, served);
  }
}

TEST_F(BigLockTest, TheVirtualClockMayAdvanceWhileTheLoopSleeps) {
  std::atomic<bool> served{false};
  Timer timer(MainLoop::context(), ClockType::kVirtual, [&] { served = true; });
  timer.arm_after(10);
  expect_served_after([] { MainLoop::context().advance_virtual_clock(10); }, served);
}

// The loop goes from the futex to epoll and back; a wake-up that looks for it in the wrong place is lost for good.
TEST_F(BigLockTest, NoWakeUpIsLostWhileHandlersComeAndGo) {
  constexpr int kRounds = 20'000;
  int fds[2];
  ASSERT_EQ(::pipe(fds), 0);
  std::atomic<int> wanted{0};
  std::atomic<int> ran{0};
  const auto half = MainLoop::context().new_bottom_half([&] { ran = wanted.load(); });
  std::thread outside([&] {
    for (int round = 1; round <= kRounds; ++round) {
      {
        const BigLockGuard guard;
        MainLoop::set_fd_handler(fds[0], round % 2 != 0 ? [] {} : std::function<void()>(), nullptr);
      }
      wanted = round;
      half->schedule();
      const auto begin = std::chrono::steady_clock::now();
      while (ran != round) {
        std::this_thread::yield();
        if (std::chrono::steady_clock::now() - begin < std::chrono::seconds(5)) continue;
        ADD_FAILURE() << "lost in round " << round;
        std::abort();  // nothing wakes the loop any more
      }
    }
  });
  while (ran != kRounds) MainLoop::wait(false);
  outside.join();
  ::close(fds[0]);
  ::close(fds[1]);
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
