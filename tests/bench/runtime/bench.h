// Small helpers for the benchmarks of the runtime.
#pragma once

#include <benchmark/benchmark.h>

#include <atomic>
#include <thread>

#include "coroutine/aio_context.h"

namespace coimg {

inline void per_item(benchmark::State& state, int64_t items) { state.SetItemsProcessed(state.iterations() * items); }

/// A thread that runs an event loop.
class LoopThread {
 public:
  LoopThread() {
    thread_ = std::thread([this] {
      AioContext& context = AioContext::current();
      context_ = &context;
      context_.notify_one();
      while (!stop_) context.poll(true);
    });
    context_.wait(nullptr);
  }
  ~LoopThread() {
    context().schedule_oneshot([this] { stop_ = true; });
    thread_.join();
  }
  LoopThread(const LoopThread&) = delete;
  LoopThread& operator=(const LoopThread&) = delete;

  AioContext& context() { return *context_.load(); }

 private:
  std::atomic<AioContext*> context_{nullptr};
  bool stop_ = false;  // of that thread
  std::thread thread_;
};

}  // namespace coimg
