// What the coroutine runtime's basic operations cost, next to what others offer for the same: switches and lives here,
// locks_bench.cc and loop_bench.cc for the rest.
//
// Read the ratios of one run, not the figures of several. `./dev bench runtime` builds and runs this.
#include <benchmark/benchmark.h>
#include <sys/mman.h>
#include <ucontext.h>
#include <unistd.h>

#include <atomic>
#include <boost/context/detail/fcontext.hpp>
#include <boost/context/fiber.hpp>
#include <condition_variable>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#include "coroutine/coroutine.h"
#include "coroutine/stack.h"
#include "tests/bench/runtime/bench.h"

namespace coimg {
namespace {

constexpr size_t kPeerStackBytes = 64 * 1024;

// ---- the base line ----

[[gnu::noinline]] void nothing() { asm volatile(""); }

void function_call(benchmark::State& state) {
  for (auto _ : state) nothing();
}
BENCHMARK(function_call);

void atomic_exchange(benchmark::State& state) {
  std::atomic<int> value{0};
  for (auto _ : state) benchmark::DoNotOptimize(value.exchange(1));
}
BENCHMARK(atomic_exchange);

// ---- enter and yield: there and back ----

void yield_until_stopped(void* stop) {
  Coroutine::assume_in_coroutine();
  while (!*static_cast<bool*>(stop)) Coroutine::yield();
}

void pair_coroutine(benchmark::State& state) {
  bool stop = false;
  Coroutine* co = Coroutine::create(yield_until_stopped, &stop);
  for (auto _ : state) co->enter();
  stop = true;
  co->enter();
}
BENCHMARK(pair_coroutine);

void pair_fcontext(benchmark::State& state) {
  namespace context = boost::context::detail;
  const auto stack = std::make_unique<char[]>(kPeerStackBytes);
  context::fcontext_t fiber =
      context::make_fcontext(stack.get() + kPeerStackBytes, kPeerStackBytes, [](context::transfer_t from) {
        for (;;) from = context::jump_fcontext(from.fctx, nullptr);
      });
  for (auto _ : state) fiber = context::jump_fcontext(fiber, nullptr).fctx;
}
BENCHMARK(pair_fcontext);

void pair_boost_fiber(benchmark::State& state) {
  bool stop = false;
  boost::context::fiber fiber([&stop](boost::context::fiber&& caller) {
    while (!stop) caller = std::move(caller).resume();
    return std::move(caller);
  });
  for (auto _ : state) fiber = std::move(fiber).resume();
  stop = true;
  fiber = std::move(fiber).resume();
}
BENCHMARK(pair_boost_fiber);

ucontext_t ucontext_caller;
ucontext_t ucontext_callee;

void pair_swapcontext(benchmark::State& state) {
  const auto stack = std::make_unique<char[]>(kPeerStackBytes);
  getcontext(&ucontext_callee);
  ucontext_callee.uc_stack.ss_sp = stack.get();
  ucontext_callee.uc_stack.ss_size = kPeerStackBytes;
  makecontext(
      &ucontext_callee,
      [] {
        for (;;) swapcontext(&ucontext_callee, &ucontext_caller);
      },
      0);
  for (auto _ : state) swapcontext(&ucontext_caller, &ucontext_callee);
}
BENCHMARK(pair_swapcontext);

/// Two threads that take turns, by a mutex and a condition variable.
class Turns {
 public:
  void wait_for(bool turn) {
    std::unique_lock hold(mutex_);
    changed_.wait(hold, [&] { return turn_ == turn; });
  }
  void give(bool turn) {
    const std::lock_guard hold(mutex_);
    turn_ = turn;
    changed_.notify_one();
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  bool turn_ = false;
};

void pair_threads(benchmark::State& state) {
  Turns turns;
  std::atomic<bool> stop{false};
  std::thread other([&] {
    while (!stop) {
      turns.wait_for(true);
      turns.give(false);
    }
  });
  for (auto _ : state) {
    turns.give(true);
    turns.wait_for(false);
  }
  stop = true;
  turns.give(true);
  other.join();
}
BENCHMARK(pair_threads)->UseRealTime();

// ---- create, enter and end ----

void life_coroutine(benchmark::State& state) {
  const auto entry = [](void*) { Coroutine::assume_in_coroutine(); };
  for (auto _ : state) Coroutine::create(entry, nullptr)->enter();
}
BENCHMARK(life_coroutine);

void life_callable(benchmark::State& state) {
  int64_t runs = 0;
  for (auto _ : state) Coroutine::create([&runs]() coroutine_fn { ++runs; })->enter();
}
BENCHMARK(life_callable);

void life_boost_fiber(benchmark::State& state) {
  for (auto _ : state) {
    boost::context::fiber fiber([](boost::context::fiber&& caller) { return std::move(caller); });
    fiber = std::move(fiber).resume();
  }
}
BENCHMARK(life_boost_fiber);

void life_thread(benchmark::State& state) {
  for (auto _ : state) std::thread([] {}).join();
}
BENCHMARK(life_thread)->UseRealTime();

void nest(int64_t depth) {
  if (depth > 0) Coroutine::create([depth]() coroutine_fn { nest(depth - 1); })->enter();
}

void life_nested(benchmark::State& state) {
  for (auto _ : state) nest(state.range(0));
  per_item(state, state.range(0));
}
BENCHMARK(life_nested)->Arg(1)->Arg(10)->Arg(100)->Arg(1000);

/// So many are made and suspended, then all end. Again and again, as a server would.
void life_alive(benchmark::State& state) {
  std::vector<Coroutine*> all(static_cast<size_t>(state.range(0)));
  bool stop = false;
  const auto wave = [&] {
    stop = false;
    for (Coroutine*& co : all) (co = Coroutine::create(yield_until_stopped, &stop))->enter();
    stop = true;
    for (Coroutine* co : all) co->enter();
  };
  wave();  // the kernel gives the memory once
  for (auto _ : state) wave();
  per_item(state, state.range(0));
}
BENCHMARK(life_alive)->RangeMultiplier(10)->Range(1, 100'000);

/// The floor under life_alive: the same waves of bare contexts, on stacks that were all cut from one mapping before.
void life_alive_fcontext(benchmark::State& state) {
  namespace context = boost::context::detail;
  const auto count = static_cast<size_t>(state.range(0));
  const size_t spacing = stack_size_bytes();
  void* mapping = ::mmap(nullptr, count * spacing, PROT_READ | PROT_WRITE,
                         MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_STACK, -1, 0);
  if (mapping == MAP_FAILED) return state.SkipWithError("no memory");
  ::madvise(mapping, count * spacing, MADV_NOHUGEPAGE);
  std::vector<context::fcontext_t> all(count);
  const auto wave = [&] {
    for (size_t i = 0; i < count; ++i) {
      char* top = static_cast<char*>(mapping) + (i + 1) * spacing - i % 8 * 256;
      const context::fcontext_t fresh = context::make_fcontext(top, spacing - 2048, [](context::transfer_t from) {
        from = context::jump_fcontext(from.fctx, nullptr);
        context::jump_fcontext(from.fctx, nullptr);
      });
      all[i] = context::jump_fcontext(fresh, nullptr).fctx;
    }
    for (context::fcontext_t& one : all) one = context::jump_fcontext(one, nullptr).fctx;
  };
  wave();  // the kernel gives the memory once
  for (auto _ : state) wave();
  per_item(state, state.range(0));
  ::munmap(mapping, count * spacing);
}
BENCHMARK(life_alive_fcontext)->RangeMultiplier(10)->Range(1, 100'000);

void life_alive_boost_fiber(benchmark::State& state) {
  std::vector<boost::context::fiber> all(static_cast<size_t>(state.range(0)));
  for (auto _ : state) {
    for (auto& fiber : all) {
      fiber = boost::context::fiber([](boost::context::fiber&& caller) { return std::move(caller).resume(); }).resume();
    }
    for (auto& fiber : all) fiber = std::move(fiber).resume();
  }
  per_item(state, state.range(0));
}
BENCHMARK(life_alive_boost_fiber)->RangeMultiplier(10)->Range(1, 10'000);  // more exceed the limit of mappings

/// One comes and goes while so many others sleep.
void life_beside(benchmark::State& state) {
  std::vector<Coroutine*> all(static_cast<size_t>(state.range(0)));
  bool stop = false;
  for (Coroutine*& co : all) (co = Coroutine::create(yield_until_stopped, &stop))->enter();
  const auto entry = [](void*) { Coroutine::assume_in_coroutine(); };
  for (auto _ : state) Coroutine::create(entry, nullptr)->enter();
  stop = true;
  for (Coroutine* co : all) co->enter();
}
BENCHMARK(life_beside)->Arg(1)->Arg(1000)->Arg(100'000);

}  // namespace
}  // namespace coimg

BENCHMARK_MAIN();
