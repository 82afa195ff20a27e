#include "coroutine/co_mutex.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sched.h>

#include <atomic>
#include <chrono>
#include <cstdlib>
#include <thread>
#include <vector>

#include "coroutine/aio_context.h"
#include "tests/coroutine/loop.h"

namespace coimg {
namespace {

using test::run_due;
using test::start;
using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Not;

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

TEST(CoMutexTest, AWaiterThatIsGrantedTheMutexBeforeItSleepsIsWokenOnce) {
  constexpr int kRounds = 50, kLocksEach = 500, kCoroutinesEach = 2;
  for (int round = 0; round < kRounds; ++round) {
    CoMutex mutex;
    test::LoopThread threads[3];
    std::atomic<int> ended = 0;
    for (test::LoopThread& thread : threads) {
      for (int i = 0; i < kCoroutinesEach; ++i) {
        thread.context().co_schedule(Coroutine::create([&]() coroutine_fn {
          for (int lock = 0; lock < kLocksEach; ++lock) const CoMutexGuard guard(mutex);
          ++ended;
        }));
      }
    }
    while (ended != 3 * kCoroutinesEach) std::this_thread::sleep_for(std::chrono::microseconds(100));
  }
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

// Nothing but the mutex orders the making of the holder before the waiter's look at it: for the thread sanitizer.
TEST(CoMutexTest, AWaiterMayLookAtAHolderThatWasMadeAfterIt) {
  CoMutex mutex;
  std::atomic<bool> held{false};
  std::atomic<int> ended{0};
  {
    test::LoopThread threads[2];
    threads[0].context().co_schedule(Coroutine::create([&]() coroutine_fn {
      while (!held.load(std::memory_order_relaxed)) std::this_thread::yield();
      const CoMutexGuard guard(mutex);
      ended.fetch_add(1, std::memory_order_release);
    }));
    threads[1].context().co_schedule(Coroutine::create([&]() coroutine_fn {
      const CoMutexGuard guard(mutex);
      held.store(true, std::memory_order_relaxed);
      std::this_thread::sleep_for(std::chrono::milliseconds(20));
      ended.fetch_add(1, std::memory_order_release);
    }));
    while (ended != 2) std::this_thread::yield();
  }
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

TEST(CoMutexDeathTest, UnlockingAFreeOneAborts) {
  CoMutex mutex;
  void (CoMutex::*unlock)() = &CoMutex::unlock;  // hides it from the static check
  EXPECT_DEATH((mutex.*unlock)(), "'code outside of coroutines' unlocks a CoMutex that is held by 'nobody'");
  EXPECT_DEATH(start([&]() coroutine_fn { (mutex.*unlock)(); }, "careless"),
               "'careless' unlocks a CoMutex that is held by 'nobody'");
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

/// Keeps the calling thread on the nth of the processors that it may use: the kernel may leave two threads that yield
/// to each other on one.
void stay_on_processor(int nth) {
  cpu_set_t allowed;
  ASSERT_EQ(::sched_getaffinity(0, sizeof allowed, &allowed), 0);
  for (int cpu = 0; cpu < CPU_SETSIZE; ++cpu) {
    if (!CPU_ISSET(cpu, &allowed) || nth-- != 0) continue;
    cpu_set_t one;
    CPU_ZERO(&one);
    CPU_SET(cpu, &one);
    ::sched_setaffinity(0, sizeof one, &one);
  }
}

/// One thread holds a mutex and keeps running while another, which waited for that, locks it. Many times, with the
/// holder letting go sooner or later.
[[noreturn]] void lock_while_the_holder_runs() {
  constexpr int kRounds = 500;
  CoMutex mutex;
  std::atomic<int> round_held{0};
  std::atomic<int> round_wanted{0};
  std::atomic<int> round_ended{0};
  std::atomic<bool> ended{false};
  std::thread other([&] {
    stay_on_processor(1);
    start([&]() coroutine_fn {
      for (int round = 1; round <= kRounds; ++round) {
        while (round_held < round) std::this_thread::yield();
        round_wanted = round;
        mutex.lock();
        mutex.unlock();
        round_ended = round;
      }
      ended = true;
    });
    while (!ended) AioContext::current().poll(true);
  });
  stay_on_processor(0);  // from now on: the other has inherited the whole set
  start([&]() coroutine_fn {
    for (int round = 1; round <= kRounds; ++round) {
      while (round_ended < round - 1) std::this_thread::yield();  // or it waits for the mutex of this round
      const CoMutexGuard guard(mutex);
      round_held = round;
      while (round_wanted < round) std::this_thread::yield();
      for (std::atomic<int> pause = 0; pause < round % 512; ++pause) continue;
    }
  });
  while (!ended) AioContext::current().poll(false);
  other.join();
  std::exit(0);
}

/// The same with a holder that is suspended meanwhile.
[[noreturn]] void lock_while_the_holder_sleeps() {
  for (int round = 0; round < 50; ++round) {
    CoMutex mutex;
    Coroutine* holder = start([&]() coroutine_fn {
      const CoMutexGuard guard(mutex);
      Coroutine::yield();
    });
    std::atomic<bool> begun{false};
    std::thread other([&] {
      bool got = false;
      start([&]() coroutine_fn {
        begun = true;
        const CoMutexGuard guard(mutex);
        got = true;
      });
      while (!got) AioContext::current().poll(true);
    });
    while (!begun) std::this_thread::yield();
    std::this_thread::sleep_for(std::chrono::milliseconds(2));
    holder->enter();
    other.join();
  }
  std::exit(0);
}

// Both are told by their traces: mutex_spin is the attempt, mutex_spun its success, mutex_wait the sleep.
TEST(CoMutexDeathTest, AWaiterSpinsWhileTheHolderRunsElsewhere) {
  if (std::thread::hardware_concurrency() < 2) GTEST_SKIP() << "one processor";
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  ::setenv("COIMG_TRACE", "stderr", 1);
  EXPECT_EXIT(lock_while_the_holder_runs(), testing::ExitedWithCode(0), "mutex_spun");
  ::unsetenv("COIMG_TRACE");
}

TEST(CoMutexDeathTest, AWaiterDoesNotSpinForASuspendedHolder) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  ::setenv("COIMG_TRACE", "stderr", 1);
  EXPECT_EXIT(lock_while_the_holder_sleeps(), testing::ExitedWithCode(0),
              AllOf(HasSubstr("mutex_wait"), Not(HasSubstr("mutex_spin"))));
  ::unsetenv("COIMG_TRACE");
}

}  // namespace
}  // namespace coimg
