// CoMutex: mutual exclusion between coroutines, also of different threads.
#pragma once

#include <atomic>
#include <cstdint>

#include "coroutine/annotations.h"
#include "coroutine/coroutine.h"
#include "coroutine/deadline.h"
#include "coroutine/thread_mutex.h"
#include "coroutine/wait_list.h"

namespace coimg {

/// A fair mutex. A coroutine that has to wait yields; unlock() hands the mutex to the one that waited longest.
///
/// Thread-safe: the coroutines may belong to different AioContexts. Uncontended lock and unlock make no system call.
/// One that comes while the holder runs in another thread spins for a moment before it yields.
/// Not recursive: locking it twice aborts and names the holder.
class CO_CAPABILITY("CoMutex") CoMutex {
 public:
  CoMutex() = default;
  ~CoMutex();
  CoMutex(const CoMutex&) = delete;
  CoMutex& operator=(const CoMutex&) = delete;

  void lock() coroutine_fn CO_ACQUIRE() CO_NO_THREAD_SAFETY_ANALYSIS {
    Coroutine* const self = Coroutine::self();
    if (!take(self)) [[unlikely]]
      lock_slow(self, Deadline::never());
  }

  [[nodiscard]] bool try_lock() coroutine_fn CO_TRY_ACQUIRE(true) CO_NO_THREAD_SAFETY_ANALYSIS {
    return take(Coroutine::self());
  }

  /// Waits for the mutex until the deadline. Returns whether it is held.
  [[nodiscard]] bool try_lock_until(const Deadline& deadline) coroutine_fn CO_TRY_ACQUIRE(true);

  void unlock() coroutine_fn CO_RELEASE() CO_NO_THREAD_SAFETY_ANALYSIS {
    const Coroutine* const self = Coroutine::self_or_null();
    uintptr_t expected = word_of(self);
    if (self == nullptr ||  // or a free one would look like the caller's
        !word_.compare_exchange_strong(expected, 0, std::memory_order_release, std::memory_order_relaxed)) [[unlikely]]
      unlock_slow();
  }

  /// Aborts unless the calling coroutine holds the mutex.
  void assert_locked() const CO_ASSERT_CAPABILITY(this);
  /// The coroutine that holds it, or null. Only a hint unless the caller is that coroutine.
  [[nodiscard]] Coroutine* holder() const {
    return reinterpret_cast<Coroutine*>(word_.load(std::memory_order_relaxed) & ~kContended);
  }

 private:
  struct Waiter;
  static constexpr uintptr_t kContended = 1;

  static uintptr_t word_of(const Coroutine* co) { return reinterpret_cast<uintptr_t>(co); }
  bool take(const Coroutine* self) {
    uintptr_t expected = 0;
    // Released as well: who comes to wait looks at the holder.
    return word_.compare_exchange_strong(expected, word_of(self), std::memory_order_acq_rel, std::memory_order_relaxed);
  }
  bool lock_slow(Coroutine* self, const Deadline& deadline) coroutine_fn;
  bool take_or_enqueue(Waiter& waiter);
  bool withdraw(Waiter& waiter);
  void unlock_slow() coroutine_fn;
  void check_held(const char* action) const;

  /// Who holds it, plus kContended while there are waiters.
  std::atomic<uintptr_t> word_{0};
  ThreadMutex mutex_;
  WaitList<Waiter> waiters_ CO_GUARDED_BY(mutex_);
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
