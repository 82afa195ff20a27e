#include "coroutine/aio_context.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <ctime>
#include <limits>
#include <memory>
#include <random>
#include <thread>
#include <vector>

#include "tests/coroutine/loop.h"

namespace coimg {
namespace {

using test::run_due;
using test::run_until;
using test::start;
using ::testing::ElementsAre;

AioContext& here() { return AioContext::current(); }

TEST(EventNotifierTest, IsSetUntilCleared) {
  EventNotifier notifier;
  EXPECT_FALSE(notifier.test_and_clear());
  notifier.set();
  notifier.set();
  EXPECT_TRUE(notifier.test_and_clear());
  EXPECT_FALSE(notifier.test_and_clear());
}

TEST(AioContextTest, EachThreadHasItsOwn) {
  AioContext* mine = &here();
  EXPECT_EQ(mine, &here());
  AioContext* other = nullptr;
  std::thread([&] { other = &here(); }).join();
  EXPECT_NE(mine, other);
}

TEST(AioContextTest, IsCurrentWhileItsLoopRuns) {
  AioContext* outer = &here();
  AioContext context;
  AioContext* seen = nullptr;
  context.schedule_oneshot([&] { seen = &here(); });
  context.poll(true);
  EXPECT_EQ(seen, &context);
  EXPECT_EQ(&here(), outer);
}

TEST(AioContextTest, TheSubmitHookComesFirstInEachIteration) {
  std::vector<int> order;
  here().set_submit_hook([&] { order.push_back(1); });
  here().schedule_oneshot([&] { order.push_back(2); });
  here().poll(true);
  here().poll(false);
  here().set_submit_hook(nullptr);
  here().poll(false);
  EXPECT_THAT(order, ElementsAre(1, 2, 1));
}

TEST(FdHandlerTest, IsCalledAsLongAsTheFdIsReady) {
  EventNotifier notifier;
  int calls = 0;
  here().set_fd_handler(notifier.fd(), [&] { ++calls; }, {});
  EXPECT_FALSE(here().poll(false));
  notifier.set();
  EXPECT_TRUE(here().poll(true));
  EXPECT_TRUE(here().poll(true));
  EXPECT_EQ(calls, 2);
  notifier.test_and_clear();
  EXPECT_FALSE(here().poll(false));
  here().set_fd_handler(notifier.fd(), {}, {});
  notifier.set();
  EXPECT_FALSE(here().poll(false));
}

TEST(FdHandlerTest, ReadAndWriteHandlersAreCalledForTheirOwnEvents) {
  int fds[2];
  ASSERT_EQ(::pipe(fds), 0);
  std::vector<int> order;
  here().set_fd_handler(fds[0], [&] { order.push_back(0); }, {});
  here().set_fd_handler(fds[1], {}, [&] { order.push_back(1); });
  here().poll(true);
  EXPECT_THAT(order, ElementsAre(1));
  here().set_fd_handler(fds[1], {}, {});
  ASSERT_EQ(::write(fds[1], "x", 1), 1);
  here().poll(true);
  EXPECT_THAT(order, ElementsAre(1, 0));
  here().set_fd_handler(fds[0], {}, {});
  ::close(fds[0]);
  ::close(fds[1]);
}

TEST(FdHandlerTest, MayRemoveItselfAndStillUseWhatItCaptured) {
  EventNotifier notifier;
  notifier.set();
  auto token = std::make_shared<int>(7);
  int seen = 0;
  here().set_fd_handler(notifier.fd(),
                        [&seen, &notifier, token] {
                          here().set_fd_handler(notifier.fd(), {}, {});
                          seen = *token;
                        },
                        {});
  here().poll(true);
  EXPECT_EQ(seen, 7);
  EXPECT_EQ(token.use_count(), 1);
}

// Whichever of the two comes first removes the other, whose event has already been collected.
TEST(FdHandlerTest, MayRemoveAnotherWhoseEventIsNext) {
  EventNotifier a;
  EventNotifier b;
  a.set();
  b.set();
  int calls = 0;
  auto remove_both = [&] {
    ++calls;
    here().set_fd_handler(a.fd(), {}, {});
    here().set_fd_handler(b.fd(), {}, {});
  };
  here().set_fd_handler(a.fd(), remove_both, {});
  here().set_fd_handler(b.fd(), remove_both, {});
  run_due();
  EXPECT_EQ(calls, 1);
}

TEST(FdHandlerTest, ANewHandlerOfAReusedFdDoesNotGetTheOldOnesEvent) {
  auto a = std::make_unique<EventNotifier>();
  auto b = std::make_unique<EventNotifier>();
  a->set();
  b->set();
  int old_calls = 0;
  int new_calls = 0;
  std::unique_ptr<EventNotifier> fresh;
  auto replace_other = [&](std::unique_ptr<EventNotifier>& other) {
    ++old_calls;
    here().set_fd_handler(other->fd(), {}, {});
    const int number = other->fd();
    other.reset();
    fresh = std::make_unique<EventNotifier>();
    ASSERT_EQ(fresh->fd(), number) << "the kernel hands out the lowest free number";
    here().set_fd_handler(fresh->fd(), [&] { ++new_calls; }, {});
  };
  here().set_fd_handler(a->fd(),
                        [&] {
                          if (b) replace_other(b);
                        },
                        {});
  here().set_fd_handler(b->fd(),
                        [&] {
                          if (a) replace_other(a);
                        },
                        {});
  here().poll(true);
  EXPECT_EQ(old_calls, 1);
  EXPECT_EQ(new_calls, 0);
  for (auto* notifier : {a.get(), b.get(), fresh.get()}) {
    if (notifier != nullptr) here().set_fd_handler(notifier->fd(), {}, {});
  }
}

TEST(FdHandlerTest, ANestedLoopMayConsumeTheEventsOfTheOuterOne) {
  EventNotifier a;
  EventNotifier b;
  a.set();
  b.set();
  int calls = 0;
  auto consume_both = [&] {
    ++calls;
    a.test_and_clear();
    b.test_and_clear();
    here().poll(false);
  };
  here().set_fd_handler(a.fd(), consume_both, {});
  here().set_fd_handler(b.fd(), consume_both, {});
  run_due();
  EXPECT_EQ(calls, 1);
  here().set_fd_handler(a.fd(), {}, {});
  here().set_fd_handler(b.fd(), {}, {});
}

TEST(FdHandlerTest, IsServedUnderBusyPolling) {
  AioContext context;
  context.set_max_poll_ns(100'000);
  EventNotifier notifier;
  int calls = 0;
  context.set_fd_handler(notifier.fd(),
                         [&] {
                           notifier.test_and_clear();
                           ++calls;
                         },
                         {});
  std::atomic<int> seen{0};
  std::thread other([&] {
    for (int i = 0; i < 200; ++i) {
      notifier.set();
      while (seen <= i) std::this_thread::yield();
    }
  });
  while (calls < 200) {
    context.poll(true);
    seen = calls;
  }
  other.join();
}

TEST(FdHandlerTest, BusyPollingThatDoesNotPayIsBounded) {
  AioContext context;
  context.set_max_poll_ns(1'000'000);
  timespec before;
  ::clock_gettime(CLOCK_THREAD_CPUTIME_ID, &before);
  for (int i = 0; i < 5; ++i) {
    bool fired = false;
    Timer timer(context, ClockType::kMonotonic, [&] { fired = true; });
    timer.arm_after(50'000'000);
    while (!fired) context.poll(true);
  }
  timespec after;
  ::clock_gettime(CLOCK_THREAD_CPUTIME_ID, &after);
  const int64_t used_ns = (after.tv_sec - before.tv_sec) * 1'000'000'000LL + after.tv_nsec - before.tv_nsec;
  EXPECT_LT(used_ns, 50'000'000) << "of 250 ms that passed";
}

TEST(TimerTest, FireInTheOrderOfDeadlinesAndTiesInTheOrderOfArming) {
  std::vector<int> order;
  Timer a(here(), ClockType::kVirtual, [&] { order.push_back(1); });
  Timer b(here(), ClockType::kVirtual, [&] { order.push_back(2); });
  Timer c(here(), ClockType::kVirtual, [&] { order.push_back(3); });
  c.arm_after(20);
  b.arm_after(10);
  a.arm_after(20);
  EXPECT_TRUE(a.armed());
  here().advance_virtual_clock(9);
  EXPECT_FALSE(here().poll(false));
  here().advance_virtual_clock(1);
  EXPECT_TRUE(here().poll(false));
  EXPECT_THAT(order, ElementsAre(2));
  here().advance_virtual_clock(50);
  EXPECT_TRUE(here().poll(false));
  EXPECT_THAT(order, ElementsAre(2, 3, 1));
  EXPECT_FALSE(a.armed());
}

TEST(TimerTest, ArmingAgainReplacesTheDeadline) {
  int fired = 0;
  Timer timer(here(), ClockType::kVirtual, [&] { ++fired; });
  timer.arm_after(10);
  timer.arm_after(30);
  here().advance_virtual_clock(20);
  run_due();
  EXPECT_EQ(fired, 0);
  here().advance_virtual_clock(10);
  run_due();
  EXPECT_EQ(fired, 1);
}

TEST(TimerTest, OneThatArmsItselfForNowFiresOnceAnIteration) {
  int fired = 0;
  std::unique_ptr<Timer> timer;
  timer = std::make_unique<Timer>(here(), ClockType::kVirtual, [&] {
    if (++fired < 3) timer->arm_after(0);
  });
  timer->arm_after(0);
  here().poll(true);
  EXPECT_EQ(fired, 1);
  run_due();
  EXPECT_EQ(fired, 3);
}

TEST(TimerTest, ThoseThatAreAlwaysDueDoNotKeepOthersWaiting) {
  std::vector<int> order;
  std::vector<std::unique_ptr<Timer>> eager;
  for (int i = 0; i < 3; ++i) {
    eager.push_back(std::make_unique<Timer>(here(), ClockType::kVirtual, [&order, &eager, i] {
      order.push_back(i);
      eager[static_cast<size_t>(i)]->arm_at(-i);  // long ago
    }));
    eager.back()->arm_at(0);
  }
  Timer late(here(), ClockType::kVirtual, [&] { order.push_back(8); });
  Timer later(here(), ClockType::kVirtual, [&] { order.push_back(9); });
  later.arm_after(2);
  late.arm_after(1);
  here().advance_virtual_clock(2);
  here().poll(true);
  EXPECT_THAT(order, ElementsAre(0, 1, 2, 8, 9));
  here().poll(true);
  EXPECT_THAT(order, ElementsAre(0, 1, 2, 8, 9, 2, 1, 0));
}

// Those that have armed themselves again for the past wait beside the others until these have fired.
TEST(TimerTest, OneThatHasArmedItselfForThePastCanBeCancelledAndFiresInANestedPoll) {
  std::vector<int> order;
  std::vector<std::unique_ptr<Timer>> eager;
  for (int i = 0; i < 4; ++i) {
    eager.push_back(std::make_unique<Timer>(here(), ClockType::kVirtual, [&order, &eager, i] {
      order.push_back(i);
      if (order.size() < 5) eager[static_cast<size_t>(i)]->arm_at(-1 - i);
    }));
    eager.back()->arm_at(0);
  }
  Timer late(here(), ClockType::kVirtual, [&] {
    order.push_back(8);
    eager[1]->cancel();
    eager[3].reset();
    here().poll(true);  // must not sleep, as two are due
    order.push_back(9);
  });
  late.arm_at(1);
  here().advance_virtual_clock(2);
  here().poll(true);
  EXPECT_THAT(order, ElementsAre(0, 1, 2, 3, 8, 2, 0, 9));
  run_due();
  EXPECT_EQ(order.size(), 8u);
}

TEST(TimerTest, ManyThatArmThemselvesForThePastTakeOneIterationEach) {
  constexpr int kTimers = 100'000;
  int fired = 0;
  std::vector<std::unique_ptr<Timer>> timers;
  for (int i = 0; i < kTimers; ++i) {
    timers.push_back(std::make_unique<Timer>(here(), ClockType::kVirtual, [&fired, &timers, i] {
      ++fired;
      timers[static_cast<size_t>(i)]->arm_at(-kTimers + i);
    }));
    timers.back()->arm_at(i % 2 == 0 ? -1 : 1);
  }
  here().advance_virtual_clock(2);
  here().poll(true);  // takes minutes when each firing looks at all that were armed since
  EXPECT_EQ(fired, kTimers);
}

TEST(TimerTest, MayDeleteItselfAndOthers) {
  auto token = std::make_shared<int>(1);
  int seen = 0;
  std::unique_ptr<Timer> other = std::make_unique<Timer>(here(), ClockType::kVirtual, [&] { seen = -1; });
  std::unique_ptr<Timer> timer;
  timer = std::make_unique<Timer>(here(), ClockType::kVirtual, [&seen, &timer, &other, token] {
    timer.reset();
    other.reset();
    seen = *token;
  });
  timer->arm_after(1);
  other->arm_after(1);
  here().advance_virtual_clock(1);
  run_due();
  EXPECT_EQ(seen, 1);
}

TEST(TimerTest, CancellingAnyOfManyLeavesTheRestInOrder) {
  for (unsigned seed = 0; seed < 50; ++seed) {
    SCOPED_TRACE(seed);
    std::mt19937 random(seed);
    std::vector<int> fired;
    size_t cancelled = 0;
    std::vector<std::unique_ptr<Timer>> timers;
    for (int i = 0; i < 100; ++i) {
      const int deadline = static_cast<int>(random() % 1000) + 1;
      timers.push_back(
          std::make_unique<Timer>(here(), ClockType::kVirtual, [&fired, deadline] { fired.push_back(deadline); }));
      timers.back()->arm_after(deadline);
    }
    for (auto& timer : timers) {
      if (random() % 3 != 0) continue;
      timer->cancel();
      ++cancelled;
    }
    here().advance_virtual_clock(1000);
    run_due();
    EXPECT_EQ(fired.size(), timers.size() - cancelled);
    EXPECT_TRUE(std::is_sorted(fired.begin(), fired.end()));
  }
}

TEST(TimerTest, ABlockingPollSleepsUntilTheDeadlineAndNotMuchLonger) {
  bool fired = false;
  Timer timer(here(), ClockType::kMonotonic, [&] { fired = true; });
  const int64_t begin = clock_now_ns(ClockType::kMonotonic);
  timer.arm_after(2'000'000);
  int polls = 0;
  while (!fired) {
    here().poll(true);
    ++polls;
  }
  EXPECT_GE(clock_now_ns(ClockType::kMonotonic) - begin, 2'000'000);
  EXPECT_LE(polls, 5) << "it spins instead of sleeping";
}

TEST(TimerTest, TheWallClockWorksToo) {
  bool fired = false;
  Timer timer(here(), ClockType::kRealtime, [&] { fired = true; });
  timer.arm_at(clock_now_ns(ClockType::kRealtime) + 1'000'000);
  run_until([&] { return fired; });
}

TEST(TimerTest, ADeadlinePastTheEndOfTimeDoesNotOverflow) {
  Timer timer(here(), ClockType::kMonotonic, [] {});
  timer.arm_after(std::numeric_limits<int64_t>::max());
  EXPECT_FALSE(here().poll(false));
}

TEST(CoScheduleTest, RunsTheCoroutineInTheOtherContextsThread) {
  test::LoopThread other;
  std::promise<std::thread::id> where;
  AioContext* context = nullptr;
  other.context().co_schedule(Coroutine::create([&]() coroutine_fn {
    context = &Coroutine::self()->aio_context();
    where.set_value(test::thread_id());
  }));
  EXPECT_EQ(where.get_future().get(), other.id());
  EXPECT_EQ(context, &other.context());
}

TEST(CoScheduleTest, ACoroutineMovesToAnotherThreadAndBack) {
  test::LoopThread other;
  AioContext& home = here();
  std::vector<std::thread::id> path;
  bool done = false;
  start([&]() coroutine_fn {
    path.push_back(test::thread_id());
    AioContext::reschedule_self(other.context());
    path.push_back(test::thread_id());
    AioContext::reschedule_self(home);
    path.push_back(test::thread_id());
    AioContext::reschedule_self(home);  // does nothing
    done = true;
  });
  run_until([&] { return done; });
  EXPECT_THAT(path, ElementsAre(test::thread_id(), other.id(), test::thread_id()));
}

TEST(CoScheduleDeathTest, EnteringOneThatIsOnItsWayToAnotherThreadNamesIt) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  EXPECT_DEATH(
      {
        test::LoopThread other;
        Coroutine* mover = start([&]() coroutine_fn { AioContext::reschedule_self(other.context()); }, "mover");
        mover->enter();
      },
      "coroutine 'mover' was entered while it moves to another context");
}

TEST(CoScheduleTest, ManyCoroutinesMoveBetweenThreadsAtTheSameTime) {
  constexpr int kCoroutines = 20;
  constexpr int kMoves = 200;
  std::atomic<int> ended{0};
  test::LoopThread threads[3];
  for (int i = 0; i < kCoroutines; ++i) {
    threads[i % 3].context().co_schedule(Coroutine::create([&, i]() coroutine_fn {
      for (int move = 0; move < kMoves; ++move) {
        auto& next = threads[(i + move) % 3];
        AioContext::reschedule_self(next.context());
        EXPECT_EQ(test::thread_id(), next.id());
        EXPECT_EQ(&AioContext::current(), &next.context());
      }
      ++ended;
    }));
  }
  while (ended != kCoroutines) std::this_thread::yield();
}

TEST(CoScheduleTest, AWorkerThreadWakesACoroutineInItsOwnContext) {
  bool done = false;
  std::thread::id resumed_on;
  std::thread worker;
  start([&]() coroutine_fn {
    worker = std::thread([co = Coroutine::self()] { co_wake(co); });
    Coroutine::yield();
    resumed_on = test::thread_id();
    done = true;
  });
  run_until([&] { return done; });
  worker.join();
  EXPECT_EQ(resumed_on, test::thread_id());
}

}  // namespace
}  // namespace coimg
