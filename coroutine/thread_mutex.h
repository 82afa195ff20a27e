// ThreadMutex, ThreadCondition: the standard ones with the marks that let the compiler check what is guarded. Internal
// to the runtime.
#pragma once

#include <chrono>
#include <condition_variable>
#include <mutex>

#include "coroutine/annotations.h"

namespace coimg {

/// For a few instructions that do not yield: a coroutine that holds it blocks its thread, and others that want it.
class CO_CAPABILITY("ThreadMutex") ThreadMutex {
 public:
  void lock() CO_ACQUIRE() CO_NO_THREAD_SAFETY_ANALYSIS { mutex_.lock(); }
  void unlock() CO_RELEASE() CO_NO_THREAD_SAFETY_ANALYSIS { mutex_.unlock(); }

 private:
  friend class ThreadCondition;
  std::mutex mutex_;
};

class [[nodiscard]] CO_SCOPED_CAPABILITY ThreadMutexGuard {
 public:
  explicit ThreadMutexGuard(ThreadMutex& mutex) CO_ACQUIRE(mutex) : mutex_(mutex) { mutex_.lock(); }
  ~ThreadMutexGuard() CO_RELEASE() { mutex_.unlock(); }
  ThreadMutexGuard(const ThreadMutexGuard&) = delete;
  ThreadMutexGuard& operator=(const ThreadMutexGuard&) = delete;

 private:
  ThreadMutex& mutex_;
};

/// Wakes may be spurious, so waits stand in a loop.
class ThreadCondition {
 public:
  void wait(ThreadMutex& mutex) CO_REQUIRES(mutex) CO_NO_THREAD_SAFETY_ANALYSIS {
    std::unique_lock hold(mutex.mutex_, std::adopt_lock);
    condition_.wait(hold);
    hold.release();
  }
  /// Returns false when the time has passed.
  bool wait_for(ThreadMutex& mutex, std::chrono::nanoseconds time) CO_REQUIRES(mutex) CO_NO_THREAD_SAFETY_ANALYSIS {
    std::unique_lock hold(mutex.mutex_, std::adopt_lock);
    const bool woken = condition_.wait_for(hold, time) == std::cv_status::no_timeout;
    hold.release();
    return woken;
  }
  void notify_one() { condition_.notify_one(); }
  void notify_all() { condition_.notify_all(); }

 private:
  std::condition_variable condition_;
};

}  // namespace coimg
