// CoRwlock: many readers or one writer, between coroutines.
#pragma once

#include <atomic>

#include "coroutine/annotations.h"
#include "coroutine/deadline.h"
#include "coroutine/thread_mutex.h"
#include "coroutine/wait_list.h"

namespace coimg {

class Coroutine;

/// A fair reader-writer lock: requests are served in order of arrival, readers that stand together run together, so
/// neither side starves. Thread-safe between AioContexts. It may be destroyed when every unlock() has returned; that
/// the last one has the lock is not enough.
class CO_CAPABILITY("CoRwlock") CoRwlock {
 public:
  CoRwlock() = default;
  ~CoRwlock();
  CoRwlock(const CoRwlock&) = delete;
  CoRwlock& operator=(const CoRwlock&) = delete;

  void rdlock() coroutine_fn CO_ACQUIRE_SHARED();
  void wrlock() coroutine_fn CO_ACQUIRE();
  /// Wait for the lock until the deadline. Return whether it is held.
  [[nodiscard]] bool try_rdlock_until(const Deadline& deadline) coroutine_fn CO_TRY_ACQUIRE_SHARED(true);
  [[nodiscard]] bool try_wrlock_until(const Deadline& deadline) coroutine_fn CO_TRY_ACQUIRE(true);
  /// Turns a read lock into the write lock. Others may have written in between: check again what was read.
  /// There is no form with a deadline, as the read lock is not kept meanwhile: unlock() and try_wrlock_until() instead.
  void upgrade() coroutine_fn CO_RELEASE_SHARED() CO_ACQUIRE();
  /// Turns the write lock into a read lock without letting a writer in between; never blocks, wakes waiting readers.
  void downgrade() coroutine_fn CO_RELEASE() CO_ACQUIRE_SHARED();
  void unlock() coroutine_fn CO_RELEASE_GENERIC();

  /// For the analysis, in code that is reached only with the lock held.
  void assert_rdlocked() const CO_ASSERT_SHARED_CAPABILITY(this);
  void assert_wrlocked() const CO_ASSERT_CAPABILITY(this);

 private:
  struct Ticket;
  class Line;
  bool take_at_once(bool writer);
  bool acquire(bool writer, const Deadline& deadline) coroutine_fn;
  bool wait_in_line(Ticket& ticket, const Deadline& deadline) coroutine_fn;
  bool withdraw(Ticket& ticket);
  void grant_next() CO_REQUIRES(mutex_);

  [[nodiscard]] int owners() const { return state_.load(std::memory_order_relaxed) >> 1; }
  void set_owners(int owners) CO_REQUIRES(mutex_);

  /// Lowest bit: a line. Above: the number of readers, or -1 for a writer. Without a line whoever finds room takes the
  /// lock with this alone; with one it belongs to who has `mutex_`.
  std::atomic<int> state_{0};
  ThreadMutex mutex_;
  WaitList<Ticket> line_ CO_GUARDED_BY(mutex_);
};

/// Holds the read lock for a scope inside a coroutine.
class [[nodiscard]] CO_SCOPED_CAPABILITY CoReadGuard {
 public:
  explicit CoReadGuard(CoRwlock& lock) CO_ACQUIRE_SHARED(lock) CO_NO_THREAD_SAFETY_ANALYSIS : lock_(&lock) {
    lock.rdlock();
  }
  ~CoReadGuard() CO_RELEASE_GENERIC() CO_NO_THREAD_SAFETY_ANALYSIS {
    if (held_) lock_->unlock();
  }
  CoReadGuard(const CoReadGuard&) = delete;
  CoReadGuard& operator=(const CoReadGuard&) = delete;

  /// Gives the lock up before the scope ends.
  void unlock() CO_RELEASE_GENERIC() CO_NO_THREAD_SAFETY_ANALYSIS {
    lock_->unlock();
    held_ = false;
  }

 private:
  CoRwlock* lock_;
  bool held_ = true;
};

/// Holds the write lock for a scope inside a coroutine.
class [[nodiscard]] CO_SCOPED_CAPABILITY CoWriteGuard {
 public:
  explicit CoWriteGuard(CoRwlock& lock) CO_ACQUIRE(lock) CO_NO_THREAD_SAFETY_ANALYSIS : lock_(&lock) { lock.wrlock(); }
  ~CoWriteGuard() CO_RELEASE() CO_NO_THREAD_SAFETY_ANALYSIS {
    if (held_) lock_->unlock();
  }
  CoWriteGuard(const CoWriteGuard&) = delete;
  CoWriteGuard& operator=(const CoWriteGuard&) = delete;

  void unlock() CO_RELEASE() CO_NO_THREAD_SAFETY_ANALYSIS {
    lock_->unlock();
    held_ = false;
  }
  void lock() CO_ACQUIRE() CO_NO_THREAD_SAFETY_ANALYSIS {
    lock_->wrlock();
    held_ = true;
  }

 private:
  CoRwlock* lock_;
  bool held_ = true;
};

}  // namespace coimg
