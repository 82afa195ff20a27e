// Small helpers for the tests of the runtime.
#pragma once

#include <future>
#include <thread>
#include <utility>

#include "coroutine/aio_context.h"
#include "coroutine/coroutine.h"

namespace coimg::test {

/// Makes a coroutine and runs it up to its first yield.
template <typename Body>
Coroutine* start(Body&& body, const char* name = "test coroutine") {
  Coroutine* co = Coroutine::create(std::forward<Body>(body), name);
  co->enter();
  return co;
}

/// Runs the calling thread's loop until `condition()`.
template <typename Condition>
void run_until(Condition condition) {
  while (!condition()) AioContext::current().poll(true);
}

/// Runs what is due now, without waiting.
inline void run_due() {
  while (AioContext::current().poll(false)) {
  }
}

/// The thread that runs this. Unlike std::this_thread::get_id(), whose value compilers keep across a yield.
__attribute__((noinline)) inline std::thread::id thread_id() {
  asm volatile("" ::: "memory");
  return std::this_thread::get_id();
}

/// Lets everything else run that is due in this context.
inline void pause() coroutine_fn {
  AioContext::current().co_schedule(Coroutine::self());
  Coroutine::yield();
}

/// A thread that runs an event loop until the object goes.
class LoopThread {
 public:
  LoopThread() {
    std::promise<AioContext*> made;
    thread_ = std::thread([this, &made] {
      AioContext& context = AioContext::current();
      made.set_value(&context);
      while (!stop_) context.poll(true);
      while (context.poll(false)) {
      }
    });
    context_ = made.get_future().get();
  }
  ~LoopThread() {
    context_->schedule_oneshot([this] { stop_ = true; });
    thread_.join();
  }
  LoopThread(const LoopThread&) = delete;
  LoopThread& operator=(const LoopThread&) = delete;

  AioContext& context() { return *context_; }
  std::thread::id id() const { return thread_.get_id(); }

 private:
  bool stop_ = false;  // of that thread
  AioContext* context_ = nullptr;
  std::thread thread_;
};

}  // namespace coimg::test
