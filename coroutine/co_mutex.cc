// `locked_` counts the holder and those that wait. It goes from 0 to 1 and back without `waiters_lock_`; every other
// change is made under it, together with the list. So an unlock() that sees more than one finds a waiter in the list.
#include "coroutine/co_mutex.h"

#include "coroutine/aio_context.h"
#include "coroutine/coroutine.h"
#include "coroutine/fatal.h"

namespace coimg {

/// Lives on the stack of the coroutine that waits.
struct CoMutex::Waiter {
  Coroutine* coroutine;
  Waiter* next = nullptr;
};

CoMutex::~CoMutex() {
  if (locked_.load(std::memory_order_acquire) == 0) return;
  const Coroutine* owner = holder();
  fatal("CoMutex destroyed while coroutine '%s' holds it", owner != nullptr ? owner->name() : "(unknown)");
}

void CoMutex::lock() CO_NO_THREAD_SAFETY_ANALYSIS {
  Coroutine* self = Coroutine::self();
  unsigned expected = 0;
  if (locked_.compare_exchange_strong(expected, 1, std::memory_order_acquire, std::memory_order_relaxed)) [[likely]] {
    holder_.store(self, std::memory_order_relaxed);
    return;
  }
  lock_slow(self);
}

void CoMutex::lock_slow(Coroutine* self) {
  if (holder() == self) fatal("coroutine '%s' locks a CoMutex that it already holds", self->name());
  Waiter waiter{self};
  {
    const std::lock_guard hold(waiters_lock_);
    if (locked_.fetch_add(1, std::memory_order_acquire) == 0) {  // unlocked meanwhile
      holder_.store(self, std::memory_order_relaxed);
      return;
    }
    (tail_ != nullptr ? tail_->next : head_) = &waiter;
    tail_ = &waiter;
  }
  // unlock() may run right here in another thread. It schedules us in our own context, so not before we have yielded.
  Coroutine::yield();
  if (holder() != self) fatal("coroutine '%s' was entered while it waits for a CoMutex", self->name());
}

bool CoMutex::try_lock() CO_NO_THREAD_SAFETY_ANALYSIS {
  unsigned expected = 0;
  if (!locked_.compare_exchange_strong(expected, 1, std::memory_order_acquire, std::memory_order_relaxed)) return false;
  holder_.store(Coroutine::self(), std::memory_order_relaxed);
  return true;
}

void CoMutex::unlock() CO_NO_THREAD_SAFETY_ANALYSIS {
  check_held("unlocks");
  holder_.store(nullptr, std::memory_order_relaxed);
  unsigned expected = 1;
  if (locked_.compare_exchange_strong(expected, 0, std::memory_order_release, std::memory_order_relaxed)) [[likely]] {
    return;
  }
  Coroutine* successor;
  {
    const std::lock_guard hold(waiters_lock_);
    locked_.fetch_sub(1, std::memory_order_release);
    Waiter* waiter = head_;
    head_ = waiter->next;
    if (head_ == nullptr) tail_ = nullptr;
    successor = waiter->coroutine;
    holder_.store(successor, std::memory_order_relaxed);
  }
  co_wake(successor);  // from here on the mutex may be gone
}

void CoMutex::check_held(const char* action) const {
  const Coroutine* self = Coroutine::self_or_null();
  const Coroutine* owner = holder();
  if (self != nullptr && owner == self) return;
  fatal("'%s' %s a CoMutex that is held by '%s'", self != nullptr ? self->name() : "code outside of coroutines", action,
        owner != nullptr ? owner->name() : "nobody");
}

void CoMutex::assert_locked() const { check_held("needs"); }

}  // namespace coimg
