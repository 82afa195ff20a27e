// What the event loop costs: callbacks, timers, waits for time and file descriptors, ways between threads.
#include <benchmark/benchmark.h>
#include <sys/epoll.h>
#include <unistd.h>

#include <future>
#include <memory>
#include <vector>

#include "coroutine/aio_context.h"
#include "coroutine/co_sleep.h"
#include "coroutine/coroutine.h"
#include "coroutine/main_loop.h"
#include "coroutine/worker_pool.h"
#include "tests/bench/runtime/bench.h"

namespace coimg {
namespace {

// ---- callbacks: operations a second, and how they grow ----

void bottom_half_schedule_and_run(benchmark::State& state) {
  AioContext& context = AioContext::current();
  int64_t runs = 0;
  std::vector<std::unique_ptr<BottomHalf>> halves(static_cast<size_t>(state.range(0)));
  for (auto& half : halves) half = context.new_bottom_half([&runs] { ++runs; });
  for (auto _ : state) {
    for (auto& half : halves) half->schedule();
    context.poll(false);
  }
  per_item(state, state.range(0));
}
BENCHMARK(bottom_half_schedule_and_run)->RangeMultiplier(10)->Range(1, 1'000'000);

void bottom_half_oneshot(benchmark::State& state) {
  AioContext& context = AioContext::current();
  int64_t runs = 0;
  for (auto _ : state) {
    for (int64_t i = 0; i < state.range(0); ++i) context.schedule_oneshot([&runs] { ++runs; });
    context.poll(false);
  }
  per_item(state, state.range(0));
}
BENCHMARK(bottom_half_oneshot)->Arg(1)->Arg(1000);

void bottom_half_idle(benchmark::State& state) {
  AioContext& context = AioContext::current();
  int64_t runs = 0;
  const auto half = context.new_bottom_half([&runs] { ++runs; });
  for (auto _ : state) {
    half->schedule_idle();
    context.poll(false);
  }
}
BENCHMARK(bottom_half_idle);

/// A coroutine that a bottom half of the loop runs.
void run_in_main_loop_once(benchmark::State& state) {
  for (auto _ : state) run_in_main_loop([]() coroutine_fn {});
}
BENCHMARK(run_in_main_loop_once);

/// Arms so many timers, then lets them all fire.
void timer_add_and_fire(benchmark::State& state) {
  AioContext& context = AioContext::current();
  int64_t fired = 0;
  std::vector<std::unique_ptr<Timer>> timers(static_cast<size_t>(state.range(0)));
  for (auto& timer : timers) timer = std::make_unique<Timer>(context, ClockType::kVirtual, [&fired] { ++fired; });
  uint64_t random = 1;
  for (auto _ : state) {
    for (auto& timer : timers) {
      random = random * 6364136223846793005 + 1442695040888963407;
      timer->arm_after(1 + static_cast<int64_t>(random >> 44));
    }
    context.advance_virtual_clock(1 << 20);
    context.poll(false);
  }
  per_item(state, state.range(0));
}
BENCHMARK(timer_add_and_fire)->RangeMultiplier(10)->Range(1, 1'000'000);

// ---- time and file descriptors ----

/// With the virtual clock, whose time passes at once.
void sleep_virtual(benchmark::State& state) {
  AioContext& context = AioContext::current();
  bool stop = false;
  Coroutine::create([&]() coroutine_fn {
    while (!stop) co_sleep_ns(ClockType::kVirtual, 1);
  })->enter();
  const auto pass = [&] {
    context.advance_virtual_clock(1);
    context.poll(false);
  };
  for (auto _ : state) pass();
  stop = true;
  pass();
}
BENCHMARK(sleep_virtual);

/// A deadline that has passed.
void sleep_for_nothing(benchmark::State& state) {
  run_in_main_loop([&]() coroutine_fn {
    for (auto _ : state) co_sleep_ns(ClockType::kMonotonic, 0);
  });
}
BENCHMARK(sleep_for_nothing);

/// A coroutine waits until an eventfd is readable and reads it.
void fd_wait(benchmark::State& state) {
  AioContext& context = AioContext::current();
  EventNotifier event;
  bool stop = false;
  Coroutine::create([&]() coroutine_fn {
    while (!stop) {
      yield_until_fd_readable(event.fd());
      event.test_and_clear();
    }
  })->enter();
  const auto pass = [&] {
    event.set();
    context.poll(true);
  };
  for (auto _ : state) pass();
  stop = true;
  pass();
}
BENCHMARK(fd_wait);

/// The floor under fd_wait: the system calls that it cannot do without.
void fd_wait_epoll(benchmark::State& state) {
  EventNotifier event;
  const int epoll = ::epoll_create1(EPOLL_CLOEXEC);
  epoll_event interest = {};
  interest.events = EPOLLIN;
  ::epoll_ctl(epoll, EPOLL_CTL_ADD, event.fd(), &interest);
  for (auto _ : state) {
    event.set();
    epoll_event found;
    ::epoll_wait(epoll, &found, 1, -1);
    event.test_and_clear();
  }
  ::close(epoll);
}
BENCHMARK(fd_wait_epoll);

void event_notifier_set_clear(benchmark::State& state) {
  EventNotifier event;
  for (auto _ : state) {
    event.set();
    event.test_and_clear();
  }
}
BENCHMARK(event_notifier_set_clear);

/// An iteration that finds nothing to do, with so many fd handlers.
void poll_nothing(benchmark::State& state) {
  AioContext& context = AioContext::current();
  std::vector<std::unique_ptr<EventNotifier>> events(static_cast<size_t>(state.range(0)));
  for (auto& event : events) {
    event = std::make_unique<EventNotifier>();
    context.set_fd_handler(event->fd(), [] {}, {});
  }
  for (auto _ : state) context.poll(false);
  for (auto& event : events) context.set_fd_handler(event->fd(), {}, {});
}
BENCHMARK(poll_nothing)->Arg(0)->Arg(1)->Arg(100);

// ---- other threads ----

void worker_round_trip(benchmark::State& state) {
  run_in_main_loop([&]() coroutine_fn {
    for (auto _ : state) co_run_on_worker([] {});
  });
}
BENCHMARK(worker_round_trip)->UseRealTime();

void worker_std_async(benchmark::State& state) {
  for (auto _ : state) std::async(std::launch::async, [] {}).get();
}
BENCHMARK(worker_std_async)->UseRealTime();

/// Whether there is memory for so many stacks, of which each takes two pages.
bool fits_in_memory(int64_t stacks) { return stacks * 2 < ::sysconf(_SC_AVPHYS_PAGES) * 3 / 4; }

/// So many coroutines go to another thread and back: two co_schedule() each.
void co_schedule_there_and_back(benchmark::State& state) {
  const int64_t count = state.range(0);
  if (!fits_in_memory(count)) return state.SkipWithError("not enough memory");
  AioContext& home = AioContext::current();
  LoopThread there;
  for (auto _ : state) {
    int64_t back = 0;
    for (int64_t i = 0; i < count; ++i) {
      Coroutine::create([&]() coroutine_fn {
        AioContext::reschedule_self(there.context());
        AioContext::reschedule_self(home);
        ++back;
      })->enter();
    }
    while (back != count) home.poll(true);
  }
  per_item(state, 2 * count);
}
BENCHMARK(co_schedule_there_and_back)->RangeMultiplier(10)->Range(1, 1'000'000)->UseRealTime();

}  // namespace
}  // namespace coimg
