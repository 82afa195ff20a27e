#include "coroutine/co_mutex.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <vector>

#include "tests/coroutine/loop.h"

namespace coimg {
namespace {

using test::run_due;
using test::start;
using ::testing::ElementsAre;

TEST(CoMutexTest, TheHolderIsKnown) {
  CoMutex mutex;
  EXPECT_EQ(mutex.holder(), nullptr);
  start([&]() coroutine_fn {
    const CoMutexGuard guard(mutex);
    EXPECT_EQ(mutex.holder(), Coroutine::self());
  });
  EXPECT_EQ(mutex.holder(), nullptr);
}

TEST(CoMutexTest, IsHandedToTheLongestWaiting) {
  CoMutex mutex;
  std::vector<int> order;
  Coroutine* holder = start([&]() coroutine_fn {
    const CoMutexGuard guard(mutex);
    Coroutine::yield();
  });
  for (int i = 0; i < 4; ++i) {
    start([&, i]() coroutine_fn {
      const CoMutexGuard guard(mutex);
      order.push_back(i);
    });
  }
  EXPECT_TRUE(order.empty());
  holder->enter();
  EXPECT_THAT(order, ElementsAre(0, 1, 2, 3));
}

TEST(CoMutexTest, AnUnlockingCoroutineDoesNotOvertakeTheWaiter) {
  CoMutex mutex;
  std::vector<int> order;
  Coroutine* first = start([&]() coroutine_fn {
    for (int i = 0; i < 2; ++i) {
      const CoMutexGuard guard(mutex);
      order.push_back(1);
      if (i == 0) Coroutine::yield();
    }
  });
  start([&]() coroutine_fn {
    const CoMutexGuard guard(mutex);
    order.push_back(2);
  });
  first->enter();
  run_due();
  EXPECT_THAT(order, ElementsAre(1, 2, 1));
}

TEST(CoMutexTest, TryLockDeclinesWhenHeld) {
  CoMutex mutex;
  bool got = true;
  Coroutine* holder = start([&]() coroutine_fn {
    if (!mutex.try_lock()) return;
    Coroutine::yield();
    mutex.unlock();
  });
  start([&]() coroutine_fn {
    if (mutex.try_lock()) {
      mutex.unlock();
    } else {
      got = false;
    }
  });
  EXPECT_FALSE(got);
  holder->enter();
}

TEST(CoMutexTest, AGuardCanGiveTheMutexUpAndTakeItAgain) {
  CoMutex mutex;
  start([&]() coroutine_fn {
    CoMutexGuard guard(mutex);
    guard.unlock();
    EXPECT_EQ(mutex.holder(), nullptr);
    guard.lock();
    EXPECT_EQ(mutex.holder(), Coroutine::self());
  });
}

// The counter is not atomic: the sanitizer, or a wrong sum, shows when two are inside.
TEST(CoMutexTest, ExcludesCoroutinesOfSeveralThreads) {
  constexpr int kThreads = 3;
  constexpr int kCoroutines = 4;
  constexpr int kRounds = 5000;
  CoMutex mutex;
  int64_t counter = 0;
  std::atomic<int> ended{0};
  {
    test::LoopThread threads[kThreads];
    for (auto& thread : threads) {
      for (int i = 0; i < kCoroutines; ++i) {
        thread.context().co_schedule(Coroutine::create([&]() coroutine_fn {
          for (int round = 0; round < kRounds; ++round) {
            {
              const CoMutexGuard guard(mutex);
              ++counter;
            }
            if (round % 16 == 0) {  // let the others of this thread in
              test::pause();
            }
          }
          ++ended;
        }));
      }
    }
    while (ended != kThreads * kCoroutines) std::this_thread::yield();
  }
  EXPECT_EQ(counter, int64_t{kThreads} * kCoroutines * kRounds);
}

TEST(CoMutexTest, HandsOverBetweenTwoThreadsThatBothYieldWhileHoldingIt) {
  constexpr int kRounds = 3000;
  CoMutex mutex;
  int64_t counter = 0;
  std::atomic<int> ended{0};
  {
    test::LoopThread threads[2];
    for (auto& thread : threads) {
      thread.context().co_schedule(Coroutine::create([&]() coroutine_fn {
        for (int round = 0; round < kRounds; ++round) {
          const CoMutexGuard guard(mutex);
          const int64_t seen = counter;
          test::pause();
          counter = seen + 1;
        }
        ++ended;
      }));
    }
    while (ended != 2) std::this_thread::yield();
  }
  EXPECT_EQ(counter, 2 * kRounds);
}

TEST(CoMutexDeathTest, LockingTwiceNamesTheHolder) {
  EXPECT_DEATH(start(
                   []() coroutine_fn CO_NO_THREAD_SAFETY_ANALYSIS {
                     CoMutex mutex;
                     mutex.lock();
                     mutex.lock();
                   },
                   "twice"),
               "coroutine 'twice' locks a CoMutex that it already holds");
}

TEST(CoMutexDeathTest, UnlockingWhatAnotherHoldsNamesBoth) {
  EXPECT_DEATH(
      {
        CoMutex mutex;
        start(
            [&]() coroutine_fn CO_NO_THREAD_SAFETY_ANALYSIS {
              mutex.lock();
              Coroutine::yield();
            },
            "owner");
        start([&]() coroutine_fn CO_NO_THREAD_SAFETY_ANALYSIS { mutex.unlock(); }, "thief");
      },
      "'thief' unlocks a CoMutex that is held by 'owner'");
}

TEST(CoMutexDeathTest, DestroyingAHeldOneNamesTheHolder) {
  EXPECT_DEATH(
      {
        CoMutex mutex;
        start(
            [&]() coroutine_fn CO_NO_THREAD_SAFETY_ANALYSIS {
              mutex.lock();
              Coroutine::yield();
            },
            "owner");
      },
      "CoMutex destroyed while coroutine 'owner' holds it");
}

}  // namespace
}  // namespace coimg
