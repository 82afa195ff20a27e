// Tests block/placement.cc: turns come in the order of the tickets, whatever the order of asking and finishing.
#include "block/placement.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <memory>
#include <numeric>
#include <random>
#include <vector>

#include "coroutine/co_group.h"
#include "coroutine/main_loop.h"
#include "tests/support/let_others_run.h"

namespace coimg {
namespace {

using ::testing::ElementsAre;

TEST(PlacementOrder, TurnsComeInTicketOrderWhateverTheOrderOfAsking) {
  run_in_main_loop([&]() coroutine_fn {
    for (unsigned seed = 1; seed <= 20; ++seed) {
      SCOPED_TRACE(seed);
      std::mt19937 random(seed);
      PlacementOrder order;
      std::vector<std::unique_ptr<PlacementOrder::Ticket>> tickets;
      for (int i = 0; i < 16; ++i) tickets.push_back(std::make_unique<PlacementOrder::Ticket>(order));
      std::vector<int> arrival(16);
      std::iota(arrival.begin(), arrival.end(), 0);
      std::shuffle(arrival.begin(), arrival.end(), random);

      std::vector<int> turns;
      CoGroup group;
      for (int number : arrival) {
        group.start([&, number, delay = random() % 4]() coroutine_fn {
          let_others_run(delay);
          tickets[static_cast<size_t>(number)]->wait_turn();
          turns.push_back(number);
          let_others_run(delay);
          tickets[static_cast<size_t>(number)]->finish();
        });
      }
      group.wait_all();
      EXPECT_TRUE(std::ranges::is_sorted(turns));
      EXPECT_EQ(turns.size(), 16u);
    }
  });
}

TEST(PlacementOrder, TicketsThatFinishEarlyAreSkipped) {
  run_in_main_loop([&]() coroutine_fn {
    PlacementOrder order;
    PlacementOrder::Ticket first(order), second(order), third(order);
    bool third_ran = false;
    CoGroup group;
    group.start([&]() coroutine_fn {
      third.wait_turn();
      third_ran = true;
    });
    second.finish();
    let_others_run(3);
    EXPECT_FALSE(third_ran);
    first.finish();
    first.finish();
    let_others_run(3);
    EXPECT_TRUE(third_ran);
    group.wait_all();
  });
}

TEST(PlacementOrder, ATicketThatGoesAwayEndsItsTurn) {
  run_in_main_loop([&]() coroutine_fn {
    PlacementOrder order;
    auto first = std::make_unique<PlacementOrder::Ticket>(order);
    PlacementOrder::Ticket moved = std::move(*first);
    PlacementOrder::Ticket second(order);
    first.reset();  // an empty shell by now
    bool second_ran = false;
    CoGroup group;
    group.start([&]() coroutine_fn {
      second.wait_turn();
      second_ran = true;
    });
    let_others_run(3);
    EXPECT_FALSE(second_ran);
    {
      const PlacementOrder::Ticket last_owner = std::move(moved);
    }
    let_others_run(3);
    EXPECT_TRUE(second_ran);
    group.wait_all();
  });
}

TEST(PlacementOrder, AKeptTicketOutlastsItsParts) {
  run_in_main_loop([&]() coroutine_fn {
    PlacementOrder order;
    PlacementOrder::Ticket first(order), second(order);
    std::vector<int> turns;
    CoGroup group;
    group.start([&]() coroutine_fn {
      second.wait_turn();
      turns.push_back(2);
    });
    first.keep(true);
    first.wait_turn();
    first.finish();
    let_others_run(3);
    turns.push_back(1);
    first.keep(false);
    first.wait_turn();
    first.finish();
    first.wait_turn();  // over: nothing to wait for
    group.wait_all();
    EXPECT_THAT(turns, ElementsAre(1, 2));
  });
}

}  // namespace
}  // namespace coimg
