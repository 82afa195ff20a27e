#include "coroutine/co_rwlock.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <cstdlib>
#include <string>
#include <vector>

#include "tests/coroutine/loop.h"

namespace coimg {
namespace {

using test::run_due;
using test::start;
using ::testing::ElementsAre;

/// What happened, in order: "+r1" when reader 1 came in, "-r1" when it left.
class CoRwlockTest : public ::testing::Test {
 protected:
  /// Holds the read lock until entered once more.
  Coroutine* reader(const std::string& name) {
    return start([this, name]() coroutine_fn {
      const CoReadGuard guard(lock_);
      events_.push_back("+" + name);
      Coroutine::yield();
      events_.push_back("-" + name);
    });
  }
  Coroutine* writer(const std::string& name) {
    return start([this, name]() coroutine_fn {
      const CoWriteGuard guard(lock_);
      events_.push_back("+" + name);
      Coroutine::yield();
      events_.push_back("-" + name);
    });
  }

  CoRwlock lock_;
  std::vector<std::string> events_;
};

TEST_F(CoRwlockTest, ReadersAreInTogether) {
  Coroutine* a = reader("a");
  Coroutine* b = reader("b");
  a->enter();
  b->enter();
  EXPECT_THAT(events_, ElementsAre("+a", "+b", "-a", "-b"));
}

TEST_F(CoRwlockTest, AWriterIsAlone) {
  Coroutine* w = writer("w");
  Coroutine* r = reader("r");
  Coroutine* w2 = writer("w2");
  w->enter();
  r->enter();
  w2->enter();
  EXPECT_THAT(events_, ElementsAre("+w", "-w", "+r", "-r", "+w2", "-w2"));
}

TEST_F(CoRwlockTest, AReaderDoesNotOvertakeAWaitingWriter) {
  Coroutine* r1 = reader("r1");
  Coroutine* w = writer("w");
  Coroutine* r2 = reader("r2");
  Coroutine* r3 = reader("r3");
  EXPECT_THAT(events_, ElementsAre("+r1"));
  r1->enter();
  EXPECT_THAT(events_, ElementsAre("+r1", "-r1", "+w"));
  w->enter();  // both readers behind it come in together
  EXPECT_THAT(events_, ElementsAre("+r1", "-r1", "+w", "-w", "+r2", "+r3"));
  r2->enter();
  r3->enter();
}

TEST_F(CoRwlockTest, ALoneReaderUpgradesWithoutWaiting) {
  bool upgraded = false;
  start([&]() coroutine_fn {
    lock_.rdlock();
    lock_.upgrade();
    lock_.assert_wrlocked();
    upgraded = true;
    lock_.unlock();
  });
  EXPECT_TRUE(upgraded);
}

TEST_F(CoRwlockTest, AnUpgradeWaitsForTheOtherReaders) {
  Coroutine* r = reader("r");
  start([&]() coroutine_fn {
    lock_.rdlock();
    lock_.upgrade();
    events_.push_back("upgraded");
    lock_.unlock();
  });
  EXPECT_THAT(events_, ElementsAre("+r"));
  r->enter();
  EXPECT_THAT(events_, ElementsAre("+r", "-r", "upgraded"));
}

TEST_F(CoRwlockTest, TwoUpgradesBothSucceedOneAfterTheOther) {
  std::vector<Coroutine*> upgraders;
  for (int i = 0; i < 2; ++i) {
    upgraders.push_back(start([this, i]() coroutine_fn {
      lock_.rdlock();
      Coroutine::yield();
      lock_.upgrade();
      lock_.assert_wrlocked();
      events_.push_back("w" + std::to_string(i));
      lock_.unlock();
    }));
  }
  for (Coroutine* co : upgraders) co->enter();
  run_due();
  EXPECT_THAT(events_, ElementsAre("w0", "w1"));
}

TEST_F(CoRwlockTest, AnUpgradeStandsBehindAWriterThatWaitedBefore) {
  Coroutine* upgrader = start([&]() coroutine_fn {
    lock_.rdlock();
    Coroutine::yield();
    lock_.upgrade();
    events_.push_back("upgraded");
    lock_.unlock();
  });
  Coroutine* w = writer("w");
  upgrader->enter();
  EXPECT_THAT(events_, ElementsAre("+w"));
  w->enter();
  EXPECT_THAT(events_, ElementsAre("+w", "-w", "upgraded"));
}

TEST_F(CoRwlockTest, ADowngradeLetsWaitingReadersInAndNoWriter) {
  Coroutine* holder = start([&]() coroutine_fn {
    lock_.wrlock();
    Coroutine::yield();
    lock_.downgrade();
    lock_.assert_rdlocked();
    events_.push_back("downgraded");
    Coroutine::yield();
    lock_.unlock();
  });
  Coroutine* r = reader("r");
  Coroutine* w = writer("w");
  holder->enter();
  EXPECT_THAT(events_, ElementsAre("downgraded", "+r"));
  r->enter();
  EXPECT_THAT(events_, ElementsAre("downgraded", "+r", "-r"));
  holder->enter();
  EXPECT_THAT(events_, ElementsAre("downgraded", "+r", "-r", "+w"));
  w->enter();
}

TEST_F(CoRwlockTest, NeitherSideStarvesWhenAllAlwaysWantIt) {
  constexpr int kRounds = 100;
  int reads = 0;
  int writes = 0;
  int ended = 0;
  for (int i = 0; i < 6; ++i) {
    const bool is_writer = i % 3 == 0;
    start([&, is_writer]() coroutine_fn {
      for (int round = 0; round < kRounds; ++round) {
        if (is_writer) {
          const CoWriteGuard guard(lock_);
          ++writes;
          test::pause();
        } else {
          const CoReadGuard guard(lock_);
          ++reads;
          test::pause();
        }
        // With a fair lock no side can be far ahead of its share, two to one.
        if (ended == 0) {
          EXPECT_LE(std::abs(reads - 2 * writes), 12);
        }
      }
      ++ended;
    });
  }
  test::run_until([&] { return ended == 6; });
}

TEST_F(CoRwlockTest, KeepsReadersAndWritersOfSeveralThreadsApart) {
  constexpr int kRounds = 2000;
  int64_t value[2] = {};
  std::atomic<int> ended{0};
  {
    test::LoopThread threads[3];
    for (int i = 0; i < 3; ++i) {
      for (int j = 0; j < 2; ++j) {
        threads[i].context().co_schedule(Coroutine::create([&, j]() coroutine_fn {
          for (int round = 0; round < kRounds; ++round) {
            if (j == 0) {
              const CoReadGuard guard(lock_);
              EXPECT_EQ(value[0], value[1]);
            } else if (round % 2 == 0) {
              const CoWriteGuard guard(lock_);
              ++value[0];
              ++value[1];
            } else {
              lock_.rdlock();
              lock_.upgrade();
              ++value[0];
              ++value[1];
              lock_.downgrade();
              EXPECT_EQ(value[0], value[1]);
              lock_.unlock();
            }
          }
          ++ended;
        }));
      }
    }
    while (ended != 6) std::this_thread::yield();
  }
  EXPECT_EQ(value[0], 3 * kRounds);
}

TEST(CoRwlockDeathTest, DestroyingAHeldOneAborts) {
  EXPECT_DEATH(
      {
        CoRwlock lock;
        start([&]() coroutine_fn CO_NO_THREAD_SAFETY_ANALYSIS {
          lock.rdlock();
          Coroutine::yield();
        });
      },
      "CoRwlock destroyed while a reader holds it");
}

}  // namespace
}  // namespace coimg
