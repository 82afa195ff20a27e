// CoQueue: coroutines waiting for something, in order of arrival.
#pragma once

#include "coroutine/annotations.h"

namespace coimg {

class Coroutine;
class CoMutex;

/// A FIFO of sleeping coroutines, to be used as a condition variable.
///
/// It belongs to one AioContext (or is used under a CoMutex that all users hold). Waiters check their condition
/// again after wait(). The queue may be destroyed right after its last waiter was woken; the destructor asserts that
/// nobody waits.
class CoQueue {
 public:
  enum class Position { kBack, kFront };

  CoQueue() = default;
  ~CoQueue();
  CoQueue(const CoQueue&) = delete;
  CoQueue& operator=(const CoQueue&) = delete;

  /// Sleeps until woken. With a lock: releases it before sleeping and holds it again on return.
  void wait(Position position = Position::kBack) coroutine_fn;
  void wait(CoMutex& lock, Position position = Position::kBack) coroutine_fn CO_REQUIRES(lock);

  /// Wakes the longest waiting coroutine: it is scheduled in its own context and runs after the caller yields or
  /// returns to the loop. Returns false when nobody waits.
  bool next() coroutine_mixed_fn;

  /// Wakes all that wait at the time of the call.
  void restart_all() coroutine_mixed_fn;

  /// Wakes the longest waiting one and enters it at once. Not from inside a coroutine.
  bool enter_next() no_coroutine_fn;

  [[nodiscard]] bool empty() const { return head_ == nullptr; }

 private:
  struct Waiter;
  void enqueue(Waiter& waiter, Position position);
  Coroutine* dequeue();

  Waiter* head_ = nullptr;
  Waiter* tail_ = nullptr;
};

}  // namespace coimg
