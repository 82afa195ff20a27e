// A program that is built with -O2 -flto, runtime and all: what belongs to a thread is found anew after each move.
//
// A compiler that keeps the address of a thread-local variable over a yield makes a coroutine use the thread it has
// left. With g++ 12 this fails at once when COIMG_THREAD_LOCAL_ACCESSOR is defined as nothing (own_counter() shows it),
// and when thread_state() reads a plain thread_local. Leaving the mark off only the runtime's own accessors goes
// unnoticed: that compiler does not happen to merge their calls.
#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <thread>
#include <vector>

#include "coroutine/aio_context.h"
#include "coroutine/co_group.h"
#include "coroutine/co_mutex.h"
#include "coroutine/compiler.h"
#include "coroutine/coroutine.h"
#include "coroutine/main_loop.h"
#include "coroutine/thread_state.h"
#include "coroutine/worker_pool.h"

namespace coimg {
namespace {

constexpr bool kSanitized = COIMG_ASAN || COIMG_TSAN;  // which are slow, and see other things than the optimiser does
constexpr int kThreads = 3;                            ///< besides the main one
/// Many at once, so that a loop that wakes up finds many to enter.
constexpr int kCoroutines = kSanitized ? 100 : 2000;
constexpr int kMovesOfEach = kSanitized ? 200 : 2'500;  ///< 5 million in all
constexpr int kMovesPerJob = 500;
constexpr int64_t kPollNs = 50'000;  ///< the loops poll for so long, as sleeping would take most of the time

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

/// Moves from thread to thread. `seed` decides where to.
void wander(const std::vector<AioContext*>& contexts, unsigned seed) coroutine_fn {
  Coroutine* const self = Coroutine::self();
  CoMutex mutex;
  for (int i = 0; i < kMovesOfEach; ++i) {
    AioContext* const before = &AioContext::current();
    seed = seed * 1'103'515'245 + 12'345;
    size_t place = (seed >> 16) % contexts.size();
    if (contexts[place] == before) place = (place + 1) % contexts.size();
    AioContext& target = *contexts[place];
    const ThreadState* const state_before = &thread_state();
    const int* const counter_before = own_counter();
    AioContext::reschedule_self(target);
    expect(&thread_state() != state_before, "thread_state() is the old thread's");
    expect(own_counter() != counter_before, "an accessor gives the old thread's variable");
    expect(&AioContext::current() == &target, "AioContext::current() is the old thread's");
    expect(Coroutine::self() == self, "Coroutine::self() is the old thread's");
    expect(&self->aio_context() == &target, "the coroutine does not know its context");
    const CoMutexGuard guard(mutex);
    Coroutine::create([]() coroutine_fn {})->enter();  // its stack is from the cache of this thread
    if ((seed >> 8) % kMovesPerJob == 0) co_run_on_worker([] {});
  }
}

/// A thread that runs an event loop.
class LoopThread {
 public:
  LoopThread() {
    thread_ = std::thread([this] {
      AioContext& context = AioContext::current();
      context.set_max_poll_ns(kPollNs);
      context_ = &context;
      context_.notify_one();
      while (!stop_) context.poll(true);
    });
    context_.wait(nullptr);
  }
  ~LoopThread() {
    context()->schedule_oneshot([this] { stop_ = true; });
    thread_.join();
  }
  LoopThread(const LoopThread&) = delete;
  LoopThread& operator=(const LoopThread&) = delete;

  AioContext* context() { return context_.load(); }

 private:
  std::atomic<AioContext*> context_{nullptr};
  bool stop_ = false;  // of that thread
  std::thread thread_;
};

}  // namespace
}  // namespace coimg

int main() {
  using namespace coimg;
  AioContext& home = AioContext::current();
  home.set_max_poll_ns(kPollNs);
  LoopThread threads[kThreads];
  std::vector<AioContext*> contexts = {&home};
  for (LoopThread& thread : threads) contexts.push_back(thread.context());
  run_in_main_loop([&]() coroutine_fn {
    CoGroup group;
    for (unsigned i = 0; i < kCoroutines; ++i) {
      group.start([&, i]() coroutine_fn {
        wander(contexts, i);
        AioContext::reschedule_self(home);  // which the group belongs to
      });
    }
    group.wait_all();
  });
  std::printf("%d moves\n", kCoroutines * kMovesOfEach);
}
