// CoMutex: mutual exclusion between coroutines, also of different threads.
#pragma once

#include <atomic>
#include <mutex>

#include "coroutine/annotations.h"

namespace coimg {

class Coroutine;

/// A fair mutex. A coroutine that has to wait yields; unlock() hands the mutex to the one that waited longest.
///
/// Thread-safe: the coroutines may belong to different AioContexts. Uncontended lock and unlock make no system call.
/// Not recursive: locking it twice aborts and names the holder.
class CO_CAPABILITY("CoMutex") CoMutex {
 public:
  CoMutex() = default;
  ~CoMutex();
  CoMutex(const CoMutex&) = delete;
  CoMutex& operator=(const CoMutex&) = delete;

  void lock() coroutine_fn CO_ACQUIRE();
  [[nodiscard]] bool try_lock() coroutine_fn CO_TRY_ACQUIRE(true);
  void unlock() coroutine_fn CO_RELEASE();

  /// Aborts unless the calling coroutine holds the mutex.
  void assert_locked() const CO_ASSERT_CAPABILITY(this);
  /// The coroutine that holds it, or null. Only a hint unless the caller is that coroutine.
  [[nodiscard]] Coroutine* holder() const { return holder_.load(std::memory_order_relaxed); }

 private:
  struct Waiter;
  void lock_slow(Coroutine* self) coroutine_fn;
  void check_held(const char* action) const;

  std::atomic<unsigned> locked_{0};  ///< holders plus waiters
  std::atomic<Coroutine*> holder_{nullptr};
  std::mutex waiters_lock_;  ///< guards the list; taken only when there is contention
  Waiter* head_ = nullptr;
  Waiter* tail_ = nullptr;
};

/// Holds a CoMutex for a scope. The scope must be inside a coroutine: checked at run time, as the analysis cannot
/// combine both capabilities on a constructor.
class [[nodiscard]] CO_SCOPED_CAPABILITY CoMutexGuard {
 public:
  explicit CoMutexGuard(CoMutex& mutex) CO_ACQUIRE(mutex) CO_NO_THREAD_SAFETY_ANALYSIS : mutex_(&mutex) {
    mutex.lock();
  }
  ~CoMutexGuard() CO_RELEASE() CO_NO_THREAD_SAFETY_ANALYSIS {
    if (held_) mutex_->unlock();
  }
  CoMutexGuard(const CoMutexGuard&) = delete;
  CoMutexGuard& operator=(const CoMutexGuard&) = delete;

  /// Gives the mutex up before the scope ends; lock() takes it again.
  void unlock() CO_RELEASE() CO_NO_THREAD_SAFETY_ANALYSIS {
    mutex_->unlock();
    held_ = false;
  }
  void lock() CO_ACQUIRE() CO_NO_THREAD_SAFETY_ANALYSIS {
    mutex_->lock();
    held_ = true;
  }

 private:
  CoMutex* mutex_;
  bool held_ = true;
};

}  // namespace coimg
