// BigLock: lets threads outside touch what belongs to the main loop.
#pragma once

#include "coroutine/annotations.h"

namespace coimg {

/// One for the process. The main thread holds it from MainLoop::init() on, but for the times when its loop waits for
/// events. Another thread that holds it therefore runs between two callbacks of the main loop, and may do what they do
/// with plain data; it may not yield, nor run the loop.
///
/// Fair: a loop that always has work lets a thread that asks in before its next iteration.
class CO_CAPABILITY("BigLock") BigLock {
 public:
  /// Waits for the lock. Not recursive: aborts when the thread holds it already.
  void lock() no_coroutine_fn CO_ACQUIRE();
  void unlock() CO_RELEASE();
  /// Whether the calling thread holds it.
  [[nodiscard]] bool held() const;
  void assert_locked() const CO_ASSERT_CAPABILITY(this);
};

extern BigLock big_lock;

/// Holds the big lock for a scope, in a thread that is not the main one.
class [[nodiscard]] CO_SCOPED_CAPABILITY BigLockGuard {
 public:
  BigLockGuard() CO_ACQUIRE(big_lock) CO_NO_THREAD_SAFETY_ANALYSIS { big_lock.lock(); }
  ~BigLockGuard() CO_RELEASE() CO_NO_THREAD_SAFETY_ANALYSIS { big_lock.unlock(); }
  BigLockGuard(const BigLockGuard&) = delete;
  BigLockGuard& operator=(const BigLockGuard&) = delete;
};

}  // namespace coimg
