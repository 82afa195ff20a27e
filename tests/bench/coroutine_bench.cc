// What the coroutine runtime's basic operations cost.
#include <benchmark/benchmark.h>

#include <atomic>
#include <thread>
#include <vector>

#include "coroutine/aio_context.h"
#include "coroutine/co_mutex.h"
#include "coroutine/co_sleep.h"
#include "coroutine/coroutine.h"

namespace coimg {
namespace {

void yield_until_stopped(void* stop) {
  Coroutine::assume_in_coroutine();
  while (!*static_cast<bool*>(stop)) Coroutine::yield();
}

void enter_and_yield(benchmark::State& state) {
  bool stop = false;
  Coroutine* co = Coroutine::create(yield_until_stopped, &stop);
  for (auto _ : state) co->enter();
  stop = true;
  co->enter();
}
BENCHMARK(enter_and_yield);

void create_enter_end(benchmark::State& state) {
  for (auto _ : state) Coroutine::create([](void*) { Coroutine::assume_in_coroutine(); }, nullptr)->enter();
}
BENCHMARK(create_enter_end);

void create_callable_enter_end(benchmark::State& state) {
  int64_t runs = 0;
  for (auto _ : state) Coroutine::create([&runs]() coroutine_fn { ++runs; })->enter();
}
BENCHMARK(create_callable_enter_end);

void nest(int64_t depth) {
  if (depth > 0) Coroutine::create([depth]() coroutine_fn { nest(depth - 1); })->enter();
}

/// The items are coroutines.
void nested(benchmark::State& state) {
  for (auto _ : state) nest(state.range(0));
  state.SetItemsProcessed(state.iterations() * state.range(0));
}
BENCHMARK(nested)->Arg(10)->Arg(1000);

/// So many alive at once, each entered once in turn; past 16,384 the stacks have no guards.
void many_alive(benchmark::State& state) {
  bool stop = false;
  std::vector<Coroutine*> all;
  for (int64_t i = 0; i < state.range(0); ++i) all.push_back(Coroutine::create(yield_until_stopped, &stop));
  for (auto _ : state) {
    for (Coroutine* co : all) co->enter();
  }
  state.SetItemsProcessed(state.iterations() * state.range(0));
  stop = true;
  for (Coroutine* co : all) co->enter();
}
BENCHMARK(many_alive)->Arg(1000)->Arg(20000);

void mutex_uncontended(benchmark::State& state) {
  CoMutex mutex;
  Coroutine::create([&]() coroutine_fn {
    for (auto _ : state) {
      const CoMutexGuard guard(mutex);
      benchmark::ClobberMemory();
    }
  })->enter();
}
BENCHMARK(mutex_uncontended);

void bottom_half_schedule_and_run(benchmark::State& state) {
  AioContext& context = AioContext::current();
  int64_t runs = 0;
  auto bottom_half = context.new_bottom_half([&runs] { ++runs; });
  for (auto _ : state) {
    bottom_half->schedule();
    context.poll(false);
  }
}
BENCHMARK(bottom_half_schedule_and_run);

void sleep_armed_and_expired(benchmark::State& state) {
  AioContext& context = AioContext::current();
  bool stop = false;
  Coroutine* co = Coroutine::create([&]() coroutine_fn {
    while (!stop) co_sleep_ns(ClockType::kVirtual, 1);
  });
  co->enter();
  for (auto _ : state) {
    context.advance_virtual_clock(1);
    context.poll(false);
  }
  stop = true;
  context.advance_virtual_clock(1);
  context.poll(false);
}
BENCHMARK(sleep_armed_and_expired);

/// A coroutine goes to another thread and back: two wake-ups.
void reschedule_there_and_back(benchmark::State& state) {
  AioContext& home = AioContext::current();
  std::atomic<AioContext*> there{nullptr};
  bool stop = false;
  std::thread thread([&] {
    AioContext& context = AioContext::current();
    there = &context;
    while (!stop) context.poll(true);
  });
  while (there == nullptr) std::this_thread::yield();
  bool done = false;
  Coroutine::create([&]() coroutine_fn {
    for (auto _ : state) {
      AioContext::reschedule_self(*there);
      AioContext::reschedule_self(home);
    }
    done = true;
  })->enter();
  while (!done) home.poll(true);
  there.load()->schedule_oneshot([&stop] { stop = true; });
  thread.join();
}
BENCHMARK(reschedule_there_and_back)->UseRealTime();

}  // namespace
}  // namespace coimg

BENCHMARK_MAIN();
