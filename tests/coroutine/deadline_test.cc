// Each kind of wait gives up at its deadline, leaves nothing behind, and is not disturbed by a deadline it meets.
#include "coroutine/deadline.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <atomic>
#include <expected>
#include <limits>
#include <vector>

#include "coroutine/co_gate.h"
#include "coroutine/co_group.h"
#include "coroutine/co_mutex.h"
#include "coroutine/co_queue.h"
#include "coroutine/co_rwlock.h"
#include "coroutine/co_sleep.h"
#include "tests/coroutine/loop.h"

namespace coimg {
namespace {

using test::run_due;
using test::start;
using ::testing::ElementsAre;

Deadline in_ns(int64_t ns) { return Deadline::after(ClockType::kVirtual, ns); }

void pass_ns(int64_t ns) {
  AioContext::current().advance_virtual_clock(ns);
  run_due();
}

TEST(DeadlineTest, PassesWithItsClock) {
  const Deadline deadline = in_ns(10);
  EXPECT_FALSE(deadline.passed());
  pass_ns(10);
  EXPECT_TRUE(deadline.passed());
  EXPECT_FALSE(Deadline::never().passed());
  EXPECT_TRUE(Deadline::after(ClockType::kMonotonic, std::numeric_limits<int64_t>::max()).is_never());
}

TEST(DeadlineTest, AQueueIsLeftAtTheDeadlineAndTheNextOneIsWoken) {
  CoQueue queue;
  std::vector<int> order;
  start([&]() coroutine_fn { order.push_back(queue.wait_until(in_ns(10)) ? 1 : -1); });
  start([&]() coroutine_fn { order.push_back(queue.wait_until(in_ns(30)) ? 2 : -2); });
  pass_ns(10);
  EXPECT_THAT(order, ElementsAre(-1));
  EXPECT_TRUE(queue.next());
  run_due();
  EXPECT_THAT(order, ElementsAre(-1, 2));
  EXPECT_TRUE(queue.empty());
  pass_ns(30);
}

TEST(DeadlineTest, AWakeUpThatIsUnderWayWins) {
  CoQueue queue;
  std::vector<bool> woken;
  start([&]() coroutine_fn { woken.push_back(queue.wait_until(in_ns(10))); });
  queue.next();
  pass_ns(10);
  EXPECT_THAT(woken, ElementsAre(true));
}

TEST(DeadlineTest, AQueueThatIsLeftAtTheDeadlineTakesTheLockAgain) {
  CoQueue queue;
  CoMutex mutex;
  bool ended = false;
  start([&]() coroutine_fn {
    const CoMutexGuard guard(mutex);
    EXPECT_FALSE(queue.wait_until(mutex, in_ns(10)));
    mutex.assert_locked();
    ended = true;
  });
  EXPECT_EQ(mutex.holder(), nullptr);
  pass_ns(10);
  EXPECT_TRUE(ended);
}

TEST(DeadlineTest, AMutexIsNotWaitedForLonger) {
  CoMutex mutex;
  std::vector<int> order;
  Coroutine* holder = start([&]() coroutine_fn {
    const CoMutexGuard guard(mutex);
    Coroutine::yield();
  });
  for (const int ns : {10, 20, 100}) {
    start([&, ns]() coroutine_fn {
      if (mutex.try_lock_until(in_ns(ns))) {
        order.push_back(ns);
        mutex.unlock();
      } else {
        order.push_back(-ns);
      }
    });
  }
  pass_ns(20);
  EXPECT_THAT(order, ElementsAre(-10, -20));
  holder->enter();
  EXPECT_THAT(order, ElementsAre(-10, -20, 100));
  pass_ns(100);
}

TEST(DeadlineTest, AMutexWhoseOnlyWaiterGaveUpIsUnlockedAsUsual) {
  CoMutex mutex;
  bool locked_again = false;
  Coroutine* holder = start([&]() coroutine_fn {
    mutex.lock();
    Coroutine::yield();
    mutex.unlock();
    const CoMutexGuard guard(mutex);
    locked_again = true;
  });
  start([&]() coroutine_fn {
    if (mutex.try_lock_until(in_ns(10))) mutex.unlock();
  });
  pass_ns(10);
  holder->enter();
  EXPECT_TRUE(locked_again);
}

TEST(DeadlineTest, ReadersBehindAWriterThatGaveUpComeIn) {
  CoRwlock lock;
  std::vector<int> order;
  Coroutine* holder = start([&]() coroutine_fn {
    const CoReadGuard guard(lock);
    Coroutine::yield();
  });
  start([&]() coroutine_fn {
    if (lock.try_wrlock_until(in_ns(10))) {
      lock.unlock();
    } else {
      order.push_back(1);
    }
  });
  start([&]() coroutine_fn {
    if (!lock.try_rdlock_until(in_ns(50))) return;
    order.push_back(2);
    lock.unlock();
  });
  EXPECT_TRUE(order.empty());
  pass_ns(10);
  EXPECT_THAT(order, testing::UnorderedElementsAre(1, 2));
  holder->enter();
  pass_ns(50);
}

TEST(DeadlineTest, AGateThatIsNotDrainedInTimeIsOpenAgain) {
  CoGate gate;
  std::vector<int> order;
  Coroutine* user = start([&]() coroutine_fn {
    const CoGateGuard guard(gate);
    Coroutine::yield();
  });
  start([&]() coroutine_fn { order.push_back(gate.try_drain_until(in_ns(10)) ? 1 : -1); });
  start([&]() coroutine_fn { order.push_back(gate.try_drain_until(in_ns(5)) ? 2 : -2); });  // waits for its turn
  start([&]() coroutine_fn { order.push_back(gate.try_enter_until(in_ns(8)) ? 3 : -3); });
  start([&]() coroutine_fn {
    order.push_back(gate.try_enter_until(in_ns(50)) ? 4 : -4);
    gate.leave();
  });
  EXPECT_TRUE(gate.closed());
  pass_ns(8);
  EXPECT_THAT(order, ElementsAre(-2, -3));
  pass_ns(2);
  EXPECT_THAT(order, ElementsAre(-2, -3, -1, 4));
  EXPECT_FALSE(gate.closed());
  start([&]() coroutine_fn {
    order.push_back(gate.try_drain_until(in_ns(100)) ? 5 : -5);
    gate.open();
  });
  user->enter();
  run_due();
  EXPECT_THAT(order, ElementsAre(-2, -3, -1, 4, 5));
  pass_ns(100);
}

TEST(DeadlineTest, AGroupIsNotWaitedForLongerAndGoesOn) {
  CoGroup group;
  CoTryGroup<std::expected<void, int>> try_group;
  std::vector<bool> results;
  for (const int ns : {20, 40}) {
    group.start([ns]() coroutine_fn { co_sleep_ns(ClockType::kVirtual, ns); });
    try_group.start([ns]() coroutine_fn -> std::expected<void, int> {
      co_sleep_ns(ClockType::kVirtual, ns);
      return {};
    });
  }
  start([&]() coroutine_fn {
    results.push_back(group.wait_below_until(2, in_ns(10)));
    results.push_back(group.wait_below_until(2, in_ns(20)));
    results.push_back(group.wait_all_until(in_ns(5)));
    results.push_back(try_group.wait_all_until(in_ns(1)));
    results.push_back(try_group.wait_all_until(in_ns(50)));
    results.push_back(group.wait_all_until(in_ns(0)));
    results.push_back(try_group.wait_all().has_value());
  });
  run_due();
  for (int i = 0; i < 40; ++i) pass_ns(1);
  EXPECT_THAT(results, ElementsAre(false, true, false, false, true, true, true));
  EXPECT_EQ(group.running(), 0U);
}

TEST(DeadlineTest, AnFdIsNotWaitedForLongerAndCanBeWaitedForAgain) {
  EventNotifier notifier;
  std::vector<bool> ready;
  start([&]() coroutine_fn {
    ready.push_back(yield_until_fd_readable(notifier.fd(), in_ns(10)));
    ready.push_back(yield_until_fd_readable(notifier.fd(), in_ns(10)));
    ready.push_back(yield_until_fd_writable(notifier.fd(), in_ns(10)));
  });
  pass_ns(10);
  EXPECT_THAT(ready, ElementsAre(false));
  notifier.set();
  run_due();
  EXPECT_THAT(ready, ElementsAre(false, true, true));
  pass_ns(10);
}

TEST(DeadlineTest, AWaitOfOnesOwnGivesUpToo) {
  Coroutine* waiter = nullptr;
  std::vector<bool> woken;
  start([&]() coroutine_fn {
    for (int i = 0; i < 2; ++i) {
      waiter = Coroutine::self();
      woken.push_back(yield_until(in_ns(10), [&] {
        const bool waiting = waiter != nullptr;
        waiter = nullptr;
        return waiting;
      }));
    }
  });
  co_wake(std::exchange(waiter, nullptr));
  run_due();
  EXPECT_THAT(woken, ElementsAre(true));
  pass_ns(10);
  EXPECT_THAT(woken, ElementsAre(true, false));
}

// The wake-up comes from another thread at about the time of the deadline: either may win, and the count tells.
TEST(DeadlineTest, ADeadlineMayMeetAWakeUpFromAnotherThread) {
  constexpr int kRounds = 500;
  test::LoopThread threads[2];
  CoMutex mutex;
  std::atomic<int> ended{0};
  int64_t counter = 0;
  int64_t locked = 0;
  for (auto& thread : threads) {
    thread.context().co_schedule(Coroutine::create([&]() coroutine_fn {
      for (int round = 0; round < kRounds; ++round) {
        if (!mutex.try_lock_until(Deadline::after(ClockType::kMonotonic, round % 20 * 1000))) continue;
        ++locked;
        const int64_t seen = counter;
        test::pause();
        counter = seen + 1;
        mutex.unlock();
      }
      ++ended;
    }));
  }
  while (ended != 2) std::this_thread::yield();
  EXPECT_EQ(counter, locked);
  EXPECT_GT(locked, 0);
}

}  // namespace
}  // namespace coimg
