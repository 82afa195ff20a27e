#include "coroutine/co_gate.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "tests/coroutine/loop.h"

namespace coimg {
namespace {

using test::start;
using ::testing::ElementsAre;

/// What happened, in order, to users of a gate that are inside until entered once more.
class CoGateTest : public ::testing::Test {
 protected:
  Coroutine* user(const std::string& name) {
    return start([this, name]() coroutine_fn {
      const CoGateGuard guard(gate_);
      events_.push_back("+" + name);
      Coroutine::yield();
      events_.push_back("-" + name);
    });
  }
  Coroutine* drainer() {
    return start([this]() coroutine_fn {
      const CoDrainedSection section(gate_);
      events_.emplace_back("drained");
      Coroutine::yield();
    });
  }

  CoGate gate_;
  std::vector<std::string> events_;
};

TEST_F(CoGateTest, UsersAreInsideTogether) {
  Coroutine* a = user("a");
  Coroutine* b = user("b");
  EXPECT_EQ(gate_.inside(), 2U);
  a->enter();
  b->enter();
  EXPECT_EQ(gate_.inside(), 0U);
}

TEST_F(CoGateTest, ADrainWaitsForThoseInsideAndKeepsOthersOut) {
  Coroutine* a = user("a");
  Coroutine* drain = drainer();
  Coroutine* b = user("b");
  EXPECT_FALSE(gate_.try_enter());
  EXPECT_THAT(events_, ElementsAre("+a"));
  a->enter();
  EXPECT_THAT(events_, ElementsAre("+a", "-a", "drained"));
  drain->enter();
  EXPECT_THAT(events_, ElementsAre("+a", "-a", "drained", "+b"));
  b->enter();
}

TEST_F(CoGateTest, AnEmptyGateIsDrainedAtOnce) {
  drainer()->enter();
  EXPECT_THAT(events_, ElementsAre("drained"));
  EXPECT_FALSE(gate_.closed());
}

TEST_F(CoGateTest, DrainsTakeTurns) {
  Coroutine* first = drainer();
  Coroutine* second = drainer();
  EXPECT_THAT(events_, ElementsAre("drained"));
  first->enter();
  EXPECT_THAT(events_, ElementsAre("drained", "drained"));
  EXPECT_TRUE(gate_.closed());
  second->enter();
}

TEST(CoGateDeathTest, DestroyingOneWithUsersInsideAborts) {
  EXPECT_DEATH(
      {
        CoGate gate;
        static_cast<void>(gate.try_enter());
      },
      "CoGate destroyed while 1 are inside");
}

TEST(CoGateDeathTest, LeavingAnEmptyOneAborts) {
  EXPECT_DEATH(
      {
        CoGate gate;
        gate.leave();
      },
      "CoGate::leave\\(\\) called with nobody inside");
}

}  // namespace
}  // namespace coimg
