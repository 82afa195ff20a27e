#include "coroutine/co_queue.h"

#include <utility>

#include "coroutine/aio_context.h"
#include "coroutine/coroutine.h"
#include "coroutine/fatal.h"

namespace coimg {

CoQueue::~CoQueue() {
  const ThreadMutexGuard hold(mutex_);
  if (!waiters_.empty()) {
    fatal("CoQueue destroyed while coroutine '%s' waits in it", waiters_.front()->coroutine->name());
  }
}

void CoQueue::enqueue(Waiter& waiter, Position position) {
  waiter.coroutine = Coroutine::self();
  const ThreadMutexGuard hold(mutex_);
  if (position == Position::kFront) {
    waiters_.push_front(waiter);
  } else {
    waiters_.push_back(waiter);
  }
  note_whether_empty();
}

/// Takes the waiter off the queue when its time is up.
bool CoQueue::withdraw(Waiter& waiter) {
  const ThreadMutexGuard hold(mutex_);
  if (waiter.woken) return false;
  waiters_.remove(waiter);
  note_whether_empty();
  return true;
}

/// Sleeps until next() has taken the waiter off the queue, which may be gone by then.
bool CoQueue::sleep(Waiter& waiter, const Deadline& deadline) {
  if (!yield_until(deadline, [&] { return withdraw(waiter); })) return false;
  if (!waiter.woken) fatal("coroutine '%s' was entered while it waits in a CoQueue", waiter.coroutine->name());
  return true;
}

void CoQueue::wait(Position position) { static_cast<void>(wait_until(Deadline::never(), position)); }

bool CoQueue::wait_until(const Deadline& deadline, Position position) {
  Waiter waiter;
  enqueue(waiter, position);
  return sleep(waiter, deadline);
}

Coroutine* CoQueue::dequeue() {
  if (empty()) return nullptr;
  const ThreadMutexGuard hold(mutex_);
  Waiter* const waiter = waiters_.pop_front();
  if (waiter == nullptr) return nullptr;
  note_whether_empty();
  waiter->woken = true;
  return waiter->coroutine;
}

bool CoQueue::next() {
  Coroutine* const co = dequeue();
  if (co == nullptr) return false;
  co_wake(co);
  return true;
}

void CoQueue::restart_all() {
  if (empty()) return;
  WaitList<Waiter> woken;
  {
    const ThreadMutexGuard hold(mutex_);
    std::swap(woken, waiters_);
    note_whether_empty();
    for (Waiter* waiter = woken.front(); waiter != nullptr; waiter = waiter->next) waiter->woken = true;
  }
  while (const Waiter* waiter = woken.pop_front()) co_wake(waiter->coroutine);
}

bool CoQueue::enter_next() {
  Coroutine* const co = dequeue();
  if (co == nullptr) return false;
  co->enter();
  return true;
}

bool CoQueue::empty() const { return empty_.load(std::memory_order_acquire); }

void CoQueue::note_whether_empty() { empty_.store(waiters_.empty(), std::memory_order_release); }

}  // namespace coimg
