// ThreadMutex: std::mutex with the marks that let the compiler check what it guards. Internal to the runtime.
#pragma once

#include <mutex>

#include "coroutine/annotations.h"

namespace coimg {

/// For a few instructions that do not yield: a coroutine that holds it blocks its thread, and others that want it.
class CO_CAPABILITY("ThreadMutex") ThreadMutex {
 public:
  void lock() CO_ACQUIRE() CO_NO_THREAD_SAFETY_ANALYSIS { mutex_.lock(); }
  void unlock() CO_RELEASE() CO_NO_THREAD_SAFETY_ANALYSIS { mutex_.unlock(); }

 private:
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

}  // namespace coimg
