// Worker threads for what would block or busy the event loop.
#pragma once

#include <exception>
#include <functional>
#include <optional>
#include <type_traits>
#include <utility>

#include "coroutine/annotations.h"

namespace coimg {

/// The process-wide pool: threads are started on demand up to a bound and end after being idle for a while. Jobs run
/// in the order of submission. Safe from any context.
///
/// CPU-bound jobs (compression, checksums) and blocking system calls share it; max_threads() is the larger of 16 and
/// twice the processors, so that blocked calls do not keep the processors idle.
class WorkerPool {
 public:
  static WorkerPool& instance();

  /// Runs `job` on a worker; the coroutine sleeps until it is done. `job` must not use
  /// coroutine calls, nor throw.
  void run(const std::function<void()>& job) coroutine_fn;

  [[nodiscard]] unsigned max_threads() const;
  void set_max_threads(unsigned count);

  struct Impl;

 private:
  WorkerPool();
  ~WorkerPool();
  Impl* impl_;
};

/// Runs `job` on a worker thread and returns its result, which may be an error value. What `job` throws is thrown here.
template <typename Job>
std::invoke_result_t<Job&> co_run_on_worker(Job&& job) coroutine_fn {
  using Value = std::invoke_result_t<Job&>;
  std::exception_ptr thrown;
  const auto guarded = [&thrown](auto&& body) {
    try {
      body();
    } catch (...) {
      thrown = std::current_exception();
    }
  };
  if constexpr (std::is_void_v<Value>) {
    WorkerPool::instance().run([&] { guarded(job); });
    if (thrown) std::rethrow_exception(std::move(thrown));
  } else {
    std::optional<Value> value;
    WorkerPool::instance().run([&] { guarded([&] { value.emplace(job()); }); });
    if (thrown) std::rethrow_exception(std::move(thrown));
    return *std::move(value);
  }
}

}  // namespace coimg
