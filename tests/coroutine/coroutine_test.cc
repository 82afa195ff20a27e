#include "coroutine/coroutine.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <cstdlib>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "coroutine/aio_context.h"
#include "tests/coroutine/loop.h"

namespace coimg {
namespace {

using test::start;
using ::testing::ElementsAre;

TEST(CoroutineTest, NothingRunsBeforeTheFirstEnter) {
  bool ran = false;
  Coroutine* co = Coroutine::create([&]() coroutine_fn { ran = true; });
  EXPECT_FALSE(ran);
  co->enter();
  EXPECT_TRUE(ran);
}

TEST(CoroutineTest, YieldGoesBackToWhoeverEnteredAndEnterContinuesThere) {
  std::vector<int> order;
  Coroutine* co = Coroutine::create([&]() coroutine_fn {
    order.push_back(1);
    Coroutine::yield();
    order.push_back(3);
    Coroutine::yield();
    order.push_back(5);
  });
  co->enter();
  order.push_back(2);
  co->enter();
  order.push_back(4);
  co->enter();
  EXPECT_THAT(order, ElementsAre(1, 2, 3, 4, 5));
}

TEST(CoroutineTest, SelfIsNullOutsideAndTheRunningOneInside) {
  EXPECT_EQ(Coroutine::self_or_null(), nullptr);
  EXPECT_FALSE(Coroutine::in_coroutine());
  Coroutine* seen = nullptr;
  Coroutine* co = Coroutine::create([&]() coroutine_fn { seen = Coroutine::self(); });
  co->enter();
  EXPECT_EQ(seen, co);
  EXPECT_EQ(Coroutine::self_or_null(), nullptr);
}

TEST(CoroutineTest, WhatIsInheritedComesFromTheOneThatCreatesIt) {
  int first = 0, second = 0;
  void* of_child = nullptr;
  void* of_grandchild = nullptr;
  void* of_other = &first;
  Coroutine* child = nullptr;
  Coroutine* const parent = Coroutine::create([&]() coroutine_fn {
    EXPECT_EQ(Coroutine::inherited(), nullptr);
    Coroutine::set_inherited(&first);
    child = Coroutine::create([&]() coroutine_fn {
      of_child = Coroutine::inherited();
      Coroutine::create([&]() coroutine_fn { of_grandchild = Coroutine::inherited(); })->enter();
    });
    Coroutine::set_inherited(&second);
    EXPECT_EQ(Coroutine::inherited(), &second);
  });
  parent->enter();
  child->enter();
  Coroutine::create([&]() coroutine_fn { of_other = Coroutine::inherited(); })->enter();
  EXPECT_EQ(of_child, &first) << "as it was when the coroutine was created";
  EXPECT_EQ(of_grandchild, &first);
  EXPECT_EQ(of_other, nullptr);
  EXPECT_EQ(Coroutine::inherited(), nullptr);
}

TEST(CoroutineTest, KnowsItsNameAndItsContext) {
  std::string name;
  AioContext* context = nullptr;
  start(
      [&]() coroutine_fn {
        name = Coroutine::self()->name();
        context = &Coroutine::self()->aio_context();
      },
      "reader");
  EXPECT_EQ(name, "reader");
  EXPECT_EQ(context, &AioContext::current());
}

TEST(CoroutineTest, PassesTheArgumentToAPlainEntryFunction) {
  int value = 0;
  const auto entry = [](void* opaque) {
    Coroutine::assume_in_coroutine();
    *static_cast<int*>(opaque) = 42;
  };
  Coroutine::create(entry, &value, "plain")->enter();
  EXPECT_EQ(value, 42);
}

TEST(CoroutineTest, TheCallableLivesUntilTheCoroutineEnds) {
  auto token = std::make_shared<int>(0);
  const std::weak_ptr<int> watch = token;
  Coroutine* co = Coroutine::create([token = std::move(token)]() coroutine_fn { Coroutine::yield(); });
  co->enter();
  EXPECT_FALSE(watch.expired());
  co->enter();
  EXPECT_TRUE(watch.expired());
}

TEST(CoroutineTest, EnteredIsTrueInsideAndForThoseThatWaitForAnInnerOne) {
  Coroutine* outer = nullptr;
  bool outer_entered_from_inner = false;
  outer = Coroutine::create([&]() coroutine_fn {
    Coroutine::create([&]() coroutine_fn { outer_entered_from_inner = outer->entered(); })->enter();
    Coroutine::yield();
  });
  EXPECT_FALSE(outer->entered());
  outer->enter();
  EXPECT_TRUE(outer_entered_from_inner);
  EXPECT_FALSE(outer->entered());
  outer->enter();
}

TEST(CoroutineTest, EnterIfInactiveLeavesAnActiveOneAlone) {
  int runs = 0;
  Coroutine* co = nullptr;
  co = Coroutine::create([&]() coroutine_fn {
    ++runs;
    co->enter_if_inactive();
    Coroutine::yield();
    ++runs;
  });
  co->enter_if_inactive();
  EXPECT_EQ(runs, 1);
  co->enter_if_inactive();
  EXPECT_EQ(runs, 2);
}

TEST(CoroutineTest, EnterInRunsAtOnceInTheOwnContext) {
  bool ran = false;
  Coroutine::create([&]() coroutine_fn { ran = true; })->enter_in(AioContext::current());
  EXPECT_TRUE(ran);
}

TEST(CoroutineTest, EnterInAnotherContextRunsInThatContextsThread) {
  test::LoopThread other;
  std::promise<std::thread::id> where;
  Coroutine::create([&]() coroutine_fn { where.set_value(test::thread_id()); })->enter_in(other.context());
  EXPECT_EQ(where.get_future().get(), other.id());
}

void nest(int depth, int& deepest, Coroutine* outer) coroutine_fn {
  EXPECT_EQ(Coroutine::self_or_null() == outer, false);
  ++deepest;
  if (depth == 1) return;
  Coroutine* self = Coroutine::self();
  Coroutine* inner = Coroutine::create([&, depth, self]() coroutine_fn {
    nest(depth - 1, deepest, self);
    Coroutine::yield();
    ++deepest;
  });
  inner->enter();
  EXPECT_EQ(Coroutine::self(), self);
  inner->enter();
}

TEST(CoroutineTest, NestsAThousandDeepAndEachYieldGoesOneLevelUp) {
  for (int round = 0; round < 3; ++round) {  // the later ones use pooled stacks
    int deepest = 0;
    start([&]() coroutine_fn { nest(1000, deepest, nullptr); });
    EXPECT_EQ(deepest, 1000 + 999);
  }
}

TEST(CoroutineTest, AWokenOneRunsWhenItsWakerYieldsAndNotBefore) {
  std::vector<std::string> order;
  Coroutine* sleeper = start([&]() coroutine_fn {
    Coroutine::yield();
    order.push_back("sleeper");
  });
  Coroutine* waker = start([&]() coroutine_fn {
    co_wake(sleeper);
    order.push_back("waker");
    Coroutine::yield();
    order.push_back("waker again");
  });
  EXPECT_THAT(order, ElementsAre("waker", "sleeper"));
  waker->enter();
}

TEST(CoroutineTest, AWokenOneRunsWhenItsWakerEnds) {
  std::vector<std::string> order;
  Coroutine* sleeper = start([&]() coroutine_fn {
    Coroutine::yield();
    order.push_back("sleeper");
  });
  start([&]() coroutine_fn {
    co_wake(sleeper);
    order.push_back("waker");
  });
  EXPECT_THAT(order, ElementsAre("waker", "sleeper"));
}

TEST(CoroutineTest, WokenOnesRunInTheOrderOfWaking) {
  std::vector<int> order;
  std::vector<Coroutine*> sleepers;
  for (int i = 0; i < 5; ++i) {
    sleepers.push_back(start([&order, i]() coroutine_fn {
      Coroutine::yield();
      order.push_back(i);
    }));
  }
  start([&]() coroutine_fn {
    for (Coroutine* co : sleepers) co_wake(co);
  });
  EXPECT_THAT(order, ElementsAre(0, 1, 2, 3, 4));
}

TEST(CoroutineTest, WakingFromPlainCodeLeavesItToTheLoop) {
  bool ran = false;
  Coroutine* sleeper = start([&]() coroutine_fn {
    Coroutine::yield();
    ran = true;
  });
  co_wake(sleeper);
  EXPECT_FALSE(ran);
  test::run_until([&] { return ran; });
}

TEST(CoroutineTest, ShuffledWakeUpsDependOnTheSeedOnly) {
  const auto order_with_seed = [](uint64_t seed) {
    AioContext::current().shuffle_wake_ups(seed);
    std::vector<int> order;
    std::vector<Coroutine*> sleepers;
    for (int i = 0; i < 20; ++i) {
      sleepers.push_back(start([&order, i]() coroutine_fn {
        Coroutine::yield();
        order.push_back(i);
      }));
    }
    start([&]() coroutine_fn {
      for (Coroutine* co : sleepers) co_wake(co);
    });
    test::run_due();
    AioContext::current().shuffle_wake_ups(0);
    return order;
  };
  EXPECT_EQ(order_with_seed(1), order_with_seed(1));
  EXPECT_NE(order_with_seed(1), order_with_seed(2));
  EXPECT_THAT(order_with_seed(1), testing::Not(testing::ElementsAreArray(order_with_seed(0))));
  EXPECT_THAT(order_with_seed(3), testing::UnorderedElementsAreArray(order_with_seed(0)));
}

// Two that only wake each other would otherwise keep the thread inside one enter() for ever.
TEST(CoroutineTest, TheLoopGetsItsTurnBetweenCoroutinesThatWakeEachOther) {
  Coroutine* pair[2] = {};
  bool stop = false;
  int ended = 0;
  for (int i = 0; i < 2; ++i) {
    pair[i] = start([&, i]() coroutine_fn {
      Coroutine::yield();
      while (!stop) {
        co_wake(pair[1 - i]);
        Coroutine::yield();
      }
      if (++ended == 1) co_wake(pair[1 - i]);
    });
  }
  AioContext::current().schedule_oneshot([&] { pair[0]->enter(); });
  AioContext::current().schedule_oneshot([&] { stop = true; });
  test::run_until([&] { return ended == 2; });
}

TEST(CoroutineDeathTest, EnteringOneThatIsEnteredNamesBothSides) {
  EXPECT_DEATH(start(
                   [&]() coroutine_fn {
                     Coroutine* outer = Coroutine::self();
                     start([&]() coroutine_fn { outer->enter(); }, "inner");
                   },
                   "outer"),
               "'inner' cannot enter coroutine 'outer': coroutine 'outer' was already entered by 'code outside");
}

// Where assertions are off, two threads may come through, see Coroutine::enter().
#ifndef NDEBUG
TEST(CoroutineDeathTest, TwoThreadsThatEnterOneAtTheSameTimeAbort) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  for (int race = 0; race < 20; ++race) {
    EXPECT_DEATH(
        {
          std::atomic<int> at_the_start{0};
          std::atomic<int> inside{0};
          Coroutine* co = Coroutine::create(
              [&]() coroutine_fn {
                if (++inside == 2) std::_Exit(0);
                while (inside != 3) continue;  // for ever: whoever is second must be refused
              },
              "shared");
          const auto enter = [&] {
            AioContext::current();
            ++at_the_start;
            while (at_the_start != 2) continue;
            co->enter();
          };
          std::thread other(enter);
          enter();
        },
        "cannot enter coroutine 'shared': coroutine 'shared' was already entered by");
  }
}
#endif

TEST(CoroutineDeathTest, EnteringOneThatIsScheduledNamesWhoScheduledIt) {
  EXPECT_DEATH(
      {
        Coroutine* co = Coroutine::create([]() coroutine_fn {}, "job");
        AioContext::current().co_schedule(co);
        co->enter();
      },
      "cannot enter coroutine 'job': it is already scheduled by 'code outside of coroutines'");
}

TEST(CoroutineDeathTest, SchedulingTwiceNamesBothSides) {
  EXPECT_DEATH(
      {
        Coroutine* co = Coroutine::create([]() coroutine_fn {}, "job");
        start(
            [&]() coroutine_fn {
              co_wake(co);
              AioContext::current().co_schedule(co);
            },
            "eager");
      },
      "'eager' cannot schedule coroutine 'job': it was already scheduled by 'eager'");
}

TEST(CoroutineDeathTest, EndingWhileScheduledAborts) {
  EXPECT_DEATH(start([&]() coroutine_fn { co_wake(Coroutine::self()); }, "hasty"),
               "coroutine 'hasty' has ended while it is scheduled by 'hasty'");
}

TEST(CoroutineDeathTest, YieldOutsideAborts) {
  EXPECT_DEATH(
      {
        // A function pointer hides from the static check what this tests at run time.
        void (*yield)() = &Coroutine::yield;
        yield();
      },
      "yield\\(\\) called outside of a coroutine");
}

TEST(CoroutineDeathTest, PollInsideAborts) {
  EXPECT_DEATH(start(
                   []() coroutine_fn {
                     bool (AioContext::*poll)(bool) = &AioContext::poll;  // hides it from the static check
                     (AioContext::current().*poll)(false);
                   },
                   "impatient"),
               "coroutine 'impatient' called AioContext::poll");
}

}  // namespace
}  // namespace coimg
