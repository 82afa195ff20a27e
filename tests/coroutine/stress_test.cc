// Random use of everything at once: locks, queues, sleeps, deadlines and moves between contexts, with wake-ups
// shuffled.
//
// COIMG_STRESS_SECONDS says how long (default: a moment); COIMG_STRESS_SEED repeats the choices of a run, though not
// the timing of its threads. `./dev stress` runs it for a minute under ThreadSanitizer.
#include <gtest/gtest.h>

#include <array>
#include <atomic>
#include <chrono>
#include <cstdlib>
#include <iostream>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "coroutine/co_mutex.h"
#include "coroutine/co_queue.h"
#include "coroutine/co_rwlock.h"
#include "coroutine/co_sleep.h"
#include "coroutine/worker_pool.h"
#include "tests/coroutine/loop.h"

namespace coimg {
namespace {

constexpr int kActorsPerContext = 12;

uint64_t number_from_environment(const char* name, uint64_t otherwise) {
  const char* const text = std::getenv(name);
  return text != nullptr ? std::stoull(text) : otherwise;
}

/// Where all meet. Nothing here but `stop` and the counters of ends is atomic: the locks have to do.
struct World {
  std::vector<AioContext*> contexts;
  std::atomic<bool> stop{false};
  std::atomic<unsigned> ended{0};

  CoMutex mutex;
  int64_t mutex_holders CO_GUARDED_BY(mutex) = 0;
  int64_t tokens CO_GUARDED_BY(mutex) = 0;
  CoQueue token_queue;

  CoRwlock rwlock;
  std::array<int64_t, 2> pair CO_GUARDED_BY(rwlock) = {};
};

/// A coroutine that does one random thing after the other.
class Actor {
 public:
  Actor(World& world, uint64_t seed) : world_(world), random_(seed) {}

  void run() coroutine_fn {
    while (!world_.stop.load(std::memory_order_relaxed)) {
      act();
      ++actions_;
    }
    // Whoever still waits for a token gets one.
    const CoMutexGuard guard(world_.mutex);
    world_.tokens += 1;
    world_.token_queue.restart_all();
  }

  [[nodiscard]] uint64_t actions() const { return actions_; }

 private:
  unsigned below(unsigned limit) { return static_cast<unsigned>(random_() % limit); }
  Deadline soon() { return Deadline::after(ClockType::kMonotonic, below(200'000)); }

  void act() coroutine_fn {
    switch (below(11)) {
      case 0:
        return lock();
      case 1:
        return lock_until();
      case 2:
        return give_token();
      case 3:
        return take_token();
      case 4:
        return read();
      case 5:
        return write();
      case 6:
        return upgrade_and_downgrade();
      case 7:
        return co_sleep_ns(ClockType::kMonotonic, below(100'000));
      case 8:
        return AioContext::reschedule_self(*world_.contexts[below(static_cast<unsigned>(world_.contexts.size()))]);
      case 9:
        return start_another();
      default:
        if (below(8) == 0) return co_run_on_worker([] {});
        return test::pause();
    }
  }

  void maybe_pause() coroutine_fn {
    if (below(4) == 0) test::pause();
  }

  /// The critical section: alone, also over a yield.
  void hold() coroutine_fn CO_REQUIRES(world_.mutex) {
    EXPECT_EQ(++world_.mutex_holders, 1);
    maybe_pause();
    --world_.mutex_holders;
  }

  void lock() coroutine_fn {
    const CoMutexGuard guard(world_.mutex);
    hold();
  }

  void lock_until() coroutine_fn {
    if (!world_.mutex.try_lock_until(soon())) return;
    hold();
    world_.mutex.unlock();
  }

  void give_token() coroutine_fn {
    const CoMutexGuard guard(world_.mutex);
    ++world_.tokens;
    world_.token_queue.next();
  }

  void take_token() coroutine_fn {
    const CoMutexGuard guard(world_.mutex);
    while (world_.tokens == 0) {
      if (!world_.token_queue.wait_until(world_.mutex, soon())) return;
    }
    --world_.tokens;
  }

  void read() coroutine_fn {
    const CoReadGuard guard(world_.rwlock);
    const auto seen = world_.pair;
    EXPECT_EQ(seen[0], seen[1]);
    maybe_pause();
    EXPECT_EQ(world_.pair, seen);
  }

  void write() coroutine_fn {
    if (!world_.rwlock.try_wrlock_until(soon())) return;
    ++world_.pair[0];
    maybe_pause();
    ++world_.pair[1];
    world_.rwlock.unlock();
  }

  void upgrade_and_downgrade() coroutine_fn {
    world_.rwlock.rdlock();
    world_.rwlock.upgrade();
    const int64_t value = ++world_.pair[0];
    maybe_pause();
    ++world_.pair[1];
    world_.rwlock.downgrade();
    EXPECT_EQ(world_.pair[1], value);
    world_.rwlock.unlock();
  }

  void start_another() coroutine_fn {
    Coroutine* const self = Coroutine::self();
    bool done = false;
    Coroutine* const other = Coroutine::create([&]() coroutine_fn {
      test::pause();
      done = true;
      co_wake(self);
    });
    other->enter();
    Coroutine::yield();
    EXPECT_TRUE(done);
  }

  World& world_;
  std::mt19937_64 random_;
  uint64_t actions_ = 0;
};

void run_stress(unsigned contexts) {
  const uint64_t seed = number_from_environment("COIMG_STRESS_SEED", std::random_device{}());
  const auto length = std::chrono::milliseconds(1000 * number_from_environment("COIMG_STRESS_SECONDS", 0) + 300);
  std::cout << "seed: COIMG_STRESS_SEED=" << seed << "\n";
  SCOPED_TRACE(seed);

  World world;
  std::vector<std::unique_ptr<test::LoopThread>> threads;
  for (unsigned i = 0; i < contexts; ++i) {
    threads.push_back(std::make_unique<test::LoopThread>());
    world.contexts.push_back(&threads.back()->context());
    world.contexts.back()->schedule_oneshot(
        [context = world.contexts.back(), seed, i] { context->shuffle_wake_ups(seed + i + 1); });
  }
  std::vector<std::unique_ptr<Actor>> actors;
  for (unsigned i = 0; i < contexts * kActorsPerContext; ++i) {
    actors.push_back(std::make_unique<Actor>(world, seed * 1000 + i));
    world.contexts[i % contexts]->co_schedule(Coroutine::create(
        [&world, actor = actors.back().get()]() coroutine_fn {
          actor->run();
          ++world.ended;
        },
        "actor"));
  }
  std::this_thread::sleep_for(length);
  world.stop = true;
  const auto limit = std::chrono::steady_clock::now() + std::chrono::seconds(60);
  while (world.ended != actors.size() && std::chrono::steady_clock::now() < limit) std::this_thread::yield();
  ASSERT_EQ(world.ended, actors.size()) << "a wake-up was lost";
  threads.clear();

  uint64_t actions = 0;
  for (const auto& actor : actors) actions += actor->actions();
  std::cout << actions << " actions\n";
  EXPECT_GT(actions, actors.size());
}

TEST(StressTest, OneContextWithShuffledWakeUps) { run_stress(1); }

TEST(StressTest, FourContextsWithShuffledWakeUps) { run_stress(4); }

}  // namespace
}  // namespace coimg
