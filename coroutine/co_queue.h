// CoQueue: coroutines waiting for something, in order of arrival.
#pragma once

#include <atomic>

#include "coroutine/annotations.h"
#include "coroutine/deadline.h"
#include "coroutine/thread_mutex.h"
#include "coroutine/wait_list.h"

namespace coimg {

class Coroutine;

/// A FIFO of sleeping coroutines, to be used as a condition variable.
///
/// Waiters check their condition again after wait(). Thread-safe: the coroutines may belong to different AioContexts,
/// and then whatever they wait for needs a lock that they hand to wait(). The queue may be destroyed right after its
/// last waiter was woken; the destructor asserts that nobody waits.
class CoQueue {
 public:
  enum class Position { kBack, kFront };

  CoQueue() = default;
  ~CoQueue();
  CoQueue(const CoQueue&) = delete;
  CoQueue& operator=(const CoQueue&) = delete;

  /// Sleeps until woken.
  void wait(Position position = Position::kBack) coroutine_fn;
  /// Sleeps until woken, or until the deadline. Returns whether it was woken.
  [[nodiscard]] bool wait_until(const Deadline& deadline, Position position = Position::kBack) coroutine_fn;

  /// The same with a lock (CoMutex, or anything with lock() and unlock()): releases it before sleeping and holds it
  /// again on return, also after the deadline.
  template <typename Lockable>
  void wait(Lockable& lock, Position position = Position::kBack) coroutine_fn CO_REQUIRES(lock) {
    static_cast<void>(wait_until(lock, Deadline::never(), position));
  }
  template <typename Lockable>
  [[nodiscard]] bool wait_until(Lockable& lock, const Deadline& deadline, Position position = Position::kBack)
      coroutine_fn CO_REQUIRES(lock) {
    Waiter waiter;
    enqueue(waiter, position);
    lock.unlock();
    const bool woken = sleep(waiter, deadline);
    lock.lock();
    return woken;
  }

  /// Wakes the longest waiting coroutine: it is scheduled in its own context and runs after the caller yields or
  /// returns to the loop. Returns false when nobody waits.
  bool next() coroutine_mixed_fn;

  /// Wakes all that wait at the time of the call.
  void restart_all() coroutine_mixed_fn;

  /// Wakes the longest waiting one and enters it at once. Not from inside a coroutine, and only when that one belongs
  /// to the calling thread's context.
  bool enter_next() no_coroutine_fn;

  [[nodiscard]] bool empty() const;

 private:
  struct Waiter {
    Coroutine* coroutine = nullptr;
    bool woken = false;
    Waiter* previous = nullptr;
    Waiter* next = nullptr;
  };

  void enqueue(Waiter& waiter, Position position) coroutine_fn;
  bool sleep(Waiter& waiter, const Deadline& deadline) coroutine_fn;
  bool withdraw(Waiter& waiter);
  Coroutine* dequeue();
  void note_whether_empty() CO_REQUIRES(mutex_);

  ThreadMutex mutex_;
  WaitList<Waiter> waiters_ CO_GUARDED_BY(mutex_);
  /// So that waking nobody costs nothing. Who changes what others wait for sees who waits: both have had the lock that
  /// is handed to wait(), or are of one AioContext.
  std::atomic<bool> empty_{true};
};

}  // namespace coimg
