#include "coroutine/co_queue.h"

#include "coroutine/aio_context.h"
#include "coroutine/co_mutex.h"
#include "coroutine/coroutine.h"
#include "coroutine/fatal.h"

namespace coimg {

/// Lives on the stack of the coroutine that waits.
struct CoQueue::Waiter {
  Coroutine* coroutine;
  Waiter* next = nullptr;
  bool woken = false;

  /// Sleeps until next() has taken the waiter off the queue, which may be gone by then.
  void sleep() coroutine_fn {
    Coroutine::yield();
    if (!woken) fatal("coroutine '%s' was entered while it waits in a CoQueue", coroutine->name());
  }
};

CoQueue::~CoQueue() {
  if (head_ != nullptr) fatal("CoQueue destroyed while coroutine '%s' waits in it", head_->coroutine->name());
}

void CoQueue::enqueue(Waiter& waiter, Position position) {
  if (position == Position::kFront) {
    waiter.next = head_;
    head_ = &waiter;
    if (tail_ == nullptr) tail_ = &waiter;
    return;
  }
  (tail_ != nullptr ? tail_->next : head_) = &waiter;
  tail_ = &waiter;
}

Coroutine* CoQueue::dequeue() {
  Waiter* waiter = head_;
  if (waiter == nullptr) return nullptr;
  head_ = waiter->next;
  if (head_ == nullptr) tail_ = nullptr;
  waiter->woken = true;
  return waiter->coroutine;
}

void CoQueue::wait(Position position) {
  Waiter waiter{Coroutine::self()};
  enqueue(waiter, position);
  waiter.sleep();
}

void CoQueue::wait(CoMutex& lock, Position position) {
  Waiter waiter{Coroutine::self()};
  enqueue(waiter, position);
  lock.unlock();
  waiter.sleep();
  lock.lock();
}

bool CoQueue::next() {
  Coroutine* co = dequeue();
  if (co == nullptr) return false;
  co_wake(co);
  return true;
}

void CoQueue::restart_all() {
  while (next()) {
  }
}

bool CoQueue::enter_next() {
  Coroutine* co = dequeue();
  if (co == nullptr) return false;
  co->enter();
  return true;
}

}  // namespace coimg
