#include "coroutine/co_queue.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <optional>
#include <vector>

#include "coroutine/co_mutex.h"
#include "tests/coroutine/loop.h"

namespace coimg {
namespace {

using test::run_due;
using test::start;
using ::testing::ElementsAre;

TEST(CoQueueTest, WakesInOrderOfArrival) {
  CoQueue queue;
  std::vector<int> order;
  for (int i = 0; i < 3; ++i) {
    start([&, i]() coroutine_fn {
      queue.wait();
      order.push_back(i);
    });
  }
  EXPECT_TRUE(queue.next());
  run_due();
  EXPECT_THAT(order, ElementsAre(0));
  queue.restart_all();
  EXPECT_TRUE(queue.empty());
  run_due();
  EXPECT_THAT(order, ElementsAre(0, 1, 2));
  EXPECT_FALSE(queue.next());
}

TEST(CoQueueTest, AWaiterAtTheFrontIsNext) {
  CoQueue queue;
  std::vector<int> order;
  for (int i = 0; i < 3; ++i) {
    start([&, i]() coroutine_fn {
      queue.wait(i == 2 ? CoQueue::Position::kFront : CoQueue::Position::kBack);
      order.push_back(i);
    });
  }
  queue.restart_all();
  run_due();
  EXPECT_THAT(order, ElementsAre(2, 0, 1));
}

TEST(CoQueueTest, RestartAllLeavesThoseThatWaitAgain) {
  CoQueue queue;
  int runs = 0;
  start([&]() coroutine_fn {
    for (int i = 0; i < 2; ++i) {
      queue.wait();
      ++runs;
    }
  });
  queue.restart_all();
  run_due();
  EXPECT_EQ(runs, 1);
  queue.restart_all();
  run_due();
  EXPECT_EQ(runs, 2);
}

TEST(CoQueueTest, EnterNextRunsTheWaiterAtOnce) {
  CoQueue queue;
  bool ran = false;
  start([&]() coroutine_fn {
    queue.wait();
    ran = true;
  });
  EXPECT_TRUE(queue.enter_next());
  EXPECT_TRUE(ran);
  EXPECT_FALSE(queue.enter_next());
}

TEST(CoQueueTest, MayBeDestroyedWhenItsLastWaiterWasWokenButHasNotRun) {
  std::optional<CoQueue> queue(std::in_place);
  bool ran = false;
  start([&]() coroutine_fn {
    queue->wait();
    ran = true;
  });
  queue->next();
  queue.reset();
  run_due();
  EXPECT_TRUE(ran);
}

TEST(CoQueueTest, WaitingReleasesTheLockAndTakesItAgain) {
  CoQueue queue;
  CoMutex mutex;
  std::vector<int> order;
  start([&]() coroutine_fn {
    const CoMutexGuard guard(mutex);
    order.push_back(1);
    mutex.assert_locked();
    queue.wait(mutex);
    mutex.assert_locked();
    order.push_back(3);
  });
  start([&]() coroutine_fn {
    const CoMutexGuard guard(mutex);
    order.push_back(2);
    queue.next();
  });
  run_due();
  EXPECT_THAT(order, ElementsAre(1, 2, 3));
}

TEST(CoQueueDeathTest, DestroyingOneWithAWaiterNamesIt) {
  EXPECT_DEATH(
      {
        CoQueue queue;
        start([&]() coroutine_fn { queue.wait(); }, "patient");
      },
      "CoQueue destroyed while coroutine 'patient' waits");
}

TEST(CoQueueDeathTest, EnteringAWaiterFromElsewhereAborts) {
  EXPECT_DEATH(
      {
        CoQueue queue;
        start([&]() coroutine_fn { queue.wait(); }, "patient")->enter();
      },
      "coroutine 'patient' was entered while it waits in a CoQueue");
}

}  // namespace
}  // namespace coimg
