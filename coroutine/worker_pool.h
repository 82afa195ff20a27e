// Worker threads for what would block or busy the event loop.
#pragma once

#include <exception>
#include <functional>
#include <optional>
#include <type_traits>
#include <utility>

#include "coroutine/annotations.h"
#include "coroutine/deadline.h"
#include "coroutine/wait_list.h"

namespace coimg {

struct WorkerJob;

/// For jobs that would wait for each other on their worker threads, such as writes to one file: of a strand's jobs one
/// runs at a time, in the order of submission. Who finishes one goes on with the next, and no thread has to be woken
/// for that. Belongs to one pool; destroyed when none of its jobs is under way.
class WorkerStrand {
 public:
  WorkerStrand() = default;
  WorkerStrand(const WorkerStrand&) = delete;
  WorkerStrand& operator=(const WorkerStrand&) = delete;

 private:
  friend class WorkerPool;
  // Guarded by the pool's mutex.
  WaitList<WorkerJob> waiting_;
  bool busy_ = false;  ///< a job of it is in the pool's queue, or runs
};

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
  void run(const std::function<void()>& job, WorkerStrand* strand = nullptr) coroutine_fn;
  /// The same, but gives up when no worker has begun the job by the deadline. Returns whether it has run; one that was
  /// begun in time is waited for to its end, as it uses what the caller owns.
  [[nodiscard]] bool run_until(const Deadline& deadline, const std::function<void()>& job,
                               WorkerStrand* strand = nullptr) coroutine_fn;

  [[nodiscard]] unsigned max_threads() const;
  void set_max_threads(unsigned count);

  struct Impl;

 private:
  WorkerPool();
  ~WorkerPool();
  Impl* impl_;
};

/// Runs `job` on a worker thread, unless none has begun it by the deadline: returns its result (true when that is
/// void), or nothing. What `job` throws is thrown here.
template <typename Job>
auto co_run_on_worker_until(const Deadline& deadline, Job&& job) coroutine_fn {
  using Value = std::invoke_result_t<Job&>;
  using Stored = std::conditional_t<std::is_void_v<Value>, bool, Value>;
  std::optional<Stored> value;
  std::exception_ptr thrown;
  const auto body = [&] {
    try {
      if constexpr (std::is_void_v<Value>) {
        job();
        value = true;
      } else {
        value.emplace(job());
      }
    } catch (...) {
      thrown = std::current_exception();
    }
  };
  // By reference, as std::function would put the lambda on the heap.
  const bool ran = WorkerPool::instance().run_until(deadline, std::ref(body));
  if (ran && thrown) std::rethrow_exception(std::move(thrown));
  return value;
}

/// The same without a deadline. Returns the job's result, which may be an error value.
template <typename Job>
std::invoke_result_t<Job&> co_run_on_worker(Job&& job) coroutine_fn {
  auto value = co_run_on_worker_until(Deadline::never(), job);
  if constexpr (!std::is_void_v<std::invoke_result_t<Job&>>) return *std::move(value);
}

}  // namespace coimg
