// A program that is built with -O3 -flto, runtime and all: what belongs to a thread is found anew after each move.
//
// A compiler that keeps the address of a thread-local variable over a yield makes a coroutine use the thread it has
// left.
#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <thread>

#include "coroutine/aio_context.h"
#include "coroutine/co_mutex.h"
#include "coroutine/compiler.h"
#include "coroutine/coroutine.h"
#include "coroutine/main_loop.h"
#include "coroutine/thread_state.h"
#include "coroutine/worker_pool.h"

namespace coimg {
namespace {

constexpr int kMoves = 2000;

void expect(bool condition, const char* words) {
  if (condition) return;
  std::fprintf(stderr, "after a move: %s\n", words);
  std::exit(1);
}

/// As the runtime finds the thread-locals that it does not read in assembly.
COIMG_THREAD_LOCAL_ACCESSOR int* own_counter() {
  thread_local int counter = 0;
  return &counter;
}

void move_back_and_forth(AioContext& home, AioContext& there) coroutine_fn {
  Coroutine* const self = Coroutine::self();
  CoMutex mutex;
  for (int i = 0; i < kMoves; ++i) {
    AioContext& target = i % 2 == 0 ? there : home;
    AioContext* const before = &AioContext::current();
    const ThreadState* const state_before = &thread_state();
    const int* const counter_before = own_counter();
    expect(before != &target, "it was where it should go");
    AioContext::reschedule_self(target);
    expect(&thread_state() != state_before, "thread_state() is the old thread's");
    expect(own_counter() != counter_before, "an accessor gives the old thread's variable");
    expect(&AioContext::current() == &target, "AioContext::current() is the old thread's");
    expect(Coroutine::self() == self, "Coroutine::self() is the old thread's");
    expect(&self->aio_context() == &target, "the coroutine does not know its context");
    const CoMutexGuard guard(mutex);
    Coroutine::create([]() coroutine_fn {})->enter();  // its stack is from the cache of this thread
    if (i % 64 == 0) co_run_on_worker([] {});
  }
}

}  // namespace
}  // namespace coimg

int main() {
  using namespace coimg;
  std::atomic<AioContext*> there{nullptr};
  std::atomic<bool> stop{false};
  std::thread thread([&] {
    there = &AioContext::current();
    there.notify_one();
    while (!stop) there.load()->poll(true);
  });
  there.wait(nullptr);
  run_in_main_loop([&]() coroutine_fn { move_back_and_forth(AioContext::current(), *there); });
  there.load()->schedule_oneshot([&] { stop = true; });
  thread.join();
  std::puts("moved");
}
