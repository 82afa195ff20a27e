// What waiting for each other costs: locks, queues, gates and groups.
#include <benchmark/benchmark.h>

#include <atomic>
#include <future>
#include <mutex>
#include <shared_mutex>
#include <vector>

#include "coroutine/aio_context.h"
#include "coroutine/big_lock.h"
#include "coroutine/co_gate.h"
#include "coroutine/co_group.h"
#include "coroutine/co_mutex.h"
#include "coroutine/co_queue.h"
#include "coroutine/co_rwlock.h"
#include "coroutine/coroutine.h"
#include "coroutine/main_loop.h"
#include "tests/bench/runtime/bench.h"

namespace coimg {
namespace {

// ---- nobody else wants it ----

void mutex_uncontended(benchmark::State& state) {
  CoMutex mutex;
  run_in_main_loop([&]() coroutine_fn {
    for (auto _ : state) {
      const CoMutexGuard guard(mutex);
      benchmark::ClobberMemory();
    }
  });
}
BENCHMARK(mutex_uncontended);

void mutex_uncontended_std(benchmark::State& state) {
  std::mutex mutex;
  for (auto _ : state) {
    const std::lock_guard guard(mutex);
    benchmark::ClobberMemory();
  }
}
BENCHMARK(mutex_uncontended_std);

void rwlock_read(benchmark::State& state) {
  CoRwlock lock;
  run_in_main_loop([&]() coroutine_fn {
    for (auto _ : state) {
      const CoReadGuard guard(lock);
      benchmark::ClobberMemory();
    }
  });
}
BENCHMARK(rwlock_read);

void rwlock_read_std(benchmark::State& state) {
  std::shared_mutex mutex;
  for (auto _ : state) {
    const std::shared_lock guard(mutex);
    benchmark::ClobberMemory();
  }
}
BENCHMARK(rwlock_read_std);

void rwlock_write(benchmark::State& state) {
  CoRwlock lock;
  run_in_main_loop([&]() coroutine_fn {
    for (auto _ : state) {
      const CoWriteGuard guard(lock);
      benchmark::ClobberMemory();
    }
  });
}
BENCHMARK(rwlock_write);

void rwlock_write_std(benchmark::State& state) {
  std::shared_mutex mutex;
  for (auto _ : state) {
    const std::lock_guard guard(mutex);
    benchmark::ClobberMemory();
  }
}
BENCHMARK(rwlock_write_std);

/// An upgrade and a downgrade each round.
void rwlock_upgrade_downgrade(benchmark::State& state) {
  CoRwlock lock;
  run_in_main_loop([&]() coroutine_fn {
    lock.rdlock();
    for (auto _ : state) {
      lock.upgrade();
      lock.downgrade();
    }
    lock.unlock();
  });
}
BENCHMARK(rwlock_upgrade_downgrade);

void gate_enter_leave(benchmark::State& state) {
  CoGate gate;
  run_in_main_loop([&]() coroutine_fn {
    for (auto _ : state) {
      const CoGateGuard guard(gate);
      benchmark::ClobberMemory();
    }
  });
}
BENCHMARK(gate_enter_leave);

void gate_drain_open(benchmark::State& state) {
  CoGate gate;
  run_in_main_loop([&]() coroutine_fn {
    for (auto _ : state) const CoDrainedSection drained(gate);
  });
}
BENCHMARK(gate_drain_open);

void big_lock_take_give(benchmark::State& state) {
  for (auto _ : state) const BigLockGuard guard;
}
BENCHMARK(big_lock_take_give);

// ---- one gives it to another ----

/// A coroutine waits, and plain code wakes it, again and again. Without the queue this is pair_coroutine.
void queue_wait_enter_next(benchmark::State& state) {
  CoQueue queue;
  bool stop = false;
  Coroutine::create([&]() coroutine_fn {
    while (!stop) queue.wait();
  })->enter();
  for (auto _ : state) queue.enter_next();
  stop = true;
  queue.enter_next();
}
BENCHMARK(queue_wait_enter_next);

/// Two coroutines wake each other in turn: two wait() and two next() a round.
void queue_wait_next(benchmark::State& state) {
  CoQueue ping;
  CoQueue pong;
  bool stop = false;
  Coroutine::create([&]() coroutine_fn {
    for (;;) {
      ping.wait();
      if (stop) return;
      pong.next();
    }
  })->enter();
  run_in_main_loop([&]() coroutine_fn {
    for (auto _ : state) {
      ping.next();
      pong.wait();
    }
    stop = true;
    ping.next();
  });
}
BENCHMARK(queue_wait_next);

/// Gives a CoMutex to whoever waits for it, in the other thread, and waits for it again. Each round is two hand-overs,
/// as in pair_threads. The argument is how many nanoseconds the loops may poll before they sleep.
void mutex_hand_over(benchmark::State& state) {
  AioContext& home = AioContext::current();
  LoopThread thread;
  const int64_t poll_ns = state.range(0);
  home.set_max_poll_ns(poll_ns);
  thread.context().schedule_oneshot([poll_ns] { AioContext::current().set_max_poll_ns(poll_ns); });
  CoMutex mutex;
  bool turn = false;  // guarded by the mutex
  bool stop = false;
  std::atomic<int> ended{0};
  CoQueue changed;
  thread.context().co_schedule(Coroutine::create([&]() coroutine_fn {
    {
      const CoMutexGuard guard(mutex);
      while (!stop) {
        while (!turn) changed.wait(mutex);
        turn = false;
        changed.next();
      }
    }
    ++ended;
    home.notify();
  }));
  Coroutine::create([&]() coroutine_fn {
    {
      const CoMutexGuard guard(mutex);
      for (auto _ : state) {
        turn = true;
        changed.next();
        while (turn) changed.wait(mutex);
      }
      stop = turn = true;
      changed.next();
    }
    ++ended;
  })->enter();
  while (ended != 2) home.poll(true);
  home.set_max_poll_ns(0);
}
BENCHMARK(mutex_hand_over)->Arg(0)->Arg(50'000)->UseRealTime();

// ---- several at once ----

/// Starts so many coroutines, which do nothing, and waits for them.
void group_start_wait_all(benchmark::State& state) {
  run_in_main_loop([&]() coroutine_fn {
    for (auto _ : state) {
      CoGroup group;
      for (int64_t i = 0; i < state.range(0); ++i) group.start([]() coroutine_fn {});
      group.wait_all();
    }
  });
  per_item(state, state.range(0));
}
BENCHMARK(group_start_wait_all)->RangeMultiplier(10)->Range(1, 10'000);

void group_std_async(benchmark::State& state) {
  std::vector<std::future<void>> all(static_cast<size_t>(state.range(0)));
  for (auto _ : state) {
    for (auto& one : all) one = std::async(std::launch::async, [] {});
    for (auto& one : all) one.get();
  }
  per_item(state, state.range(0));
}
BENCHMARK(group_std_async)->RangeMultiplier(10)->Range(1, 100)->UseRealTime();

}  // namespace
}  // namespace coimg
