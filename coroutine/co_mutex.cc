// `word_` goes from 0 to the holder and back without `mutex_`. kContended is set and cleared under it, and is set
// exactly while there are waiters; then unlock() has to come here. So whoever stands in the line and holds `mutex_`
// knows that the holder stays what it is.
#include "coroutine/co_mutex.h"

#include "coroutine/aio_context.h"
#include "coroutine/fatal.h"

namespace coimg {
namespace {

/// About a microsecond: less than it takes to go to sleep and be woken, more than a short critical section.
constexpr int kSpins = 60;

void pause_processor() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("isb" ::: "memory");
#endif
}

}  // namespace

/// Lives on the stack of the coroutine that waits.
struct CoMutex::Waiter {
  enum State : unsigned { kSpinning, kAsleep, kGranted };

  explicit Waiter(Coroutine* co) : coroutine(co) {}

  /// Waits a little without giving the thread up. Returns whether the mutex was granted; else this sleeps from now on.
  bool spin() {
    for (int i = 0; i < kSpins; ++i) {
      if (state.load(std::memory_order_acquire) == kGranted) return true;
      pause_processor();
    }
    State expected = kSpinning;
    return !state.compare_exchange_strong(expected, kAsleep, std::memory_order_acq_rel, std::memory_order_acquire);
  }

  [[nodiscard]] bool granted() const { return state.load(std::memory_order_acquire) == kGranted; }

  Coroutine* const coroutine;
  std::atomic<State> state{kAsleep};
  bool may_spin = false;  ///< our own note: `state` may be kGranted at any time
  Waiter* previous = nullptr;
  Waiter* next = nullptr;
};

CoMutex::~CoMutex() {
  if (word_.load(std::memory_order_acquire) == 0) return;
  fatal("CoMutex destroyed while coroutine '%s' holds it", holder()->name());
}

/// Returns whether the mutex was free after all; else the waiter stands in the line, and may spin.
bool CoMutex::take_or_enqueue(Waiter& waiter) {
  const ThreadMutexGuard hold(mutex_);
  uintptr_t word = word_.load(std::memory_order_acquire);
  while ((word & kContended) == 0) {
    const uintptr_t wanted = word == 0 ? word_of(waiter.coroutine) : word | kContended;
    if (!word_.compare_exchange_weak(word, wanted, std::memory_order_acq_rel, std::memory_order_acquire)) continue;
    if (word == 0) return true;
    break;
  }
  // A holder that is suspended, or in this thread, will not unlock in the next microsecond. Nor is it worth while for
  // those further back in the line.
  const bool running_elsewhere = holder()->entered() && &holder()->aio_context() != &waiter.coroutine->aio_context();
  waiter.may_spin = waiters_.empty() && running_elsewhere;
  if (waiter.may_spin) waiter.state.store(Waiter::kSpinning, std::memory_order_relaxed);
  waiters_.push_back(waiter);
  return false;
}

/// Takes the waiter out of the line when its time is up.
bool CoMutex::withdraw(Waiter& waiter) {
  const ThreadMutexGuard hold(mutex_);
  if (holder() == waiter.coroutine) return false;  // handed over
  waiters_.remove(waiter);
  if (waiters_.empty()) word_.fetch_and(~kContended, std::memory_order_relaxed);
  return true;
}

bool CoMutex::lock_slow(Coroutine* self, const Deadline& deadline) {
  if (holder() == self) fatal("coroutine '%s' locks a CoMutex that it already holds", self->name());
  Waiter waiter(self);
  if (take_or_enqueue(waiter)) return true;
  if (waiter.may_spin) {
    trace("mutex_spin", self);
    if (waiter.spin()) {
      trace("mutex_spun", self);
      return true;
    }
  }

  // unlock() may run right here in another thread. It schedules us in our own context, so not before we have yielded.
  trace("mutex_wait", self);
  if (!yield_until(deadline, [&] { return withdraw(waiter); })) return false;
  if (!waiter.granted()) fatal("coroutine '%s' was entered while it waits for a CoMutex", self->name());
  return true;
}

bool CoMutex::try_lock_until(const Deadline& deadline) CO_NO_THREAD_SAFETY_ANALYSIS {
  Coroutine* const self = Coroutine::self();
  return take(self) || lock_slow(self, deadline);
}

void CoMutex::unlock_slow() {
  check_held("unlocks");
  Waiter* successor;
  {
    const ThreadMutexGuard hold(mutex_);
    successor = waiters_.pop_front();
    const uintptr_t owner = successor != nullptr ? word_of(successor->coroutine) : 0;  // 0: the last one gave up
    word_.store(owner | (waiters_.empty() ? 0 : kContended), std::memory_order_release);
  }
  if (successor == nullptr) return;
  // As soon as a spinning successor sees the new state it goes on: its node may be gone then, and the mutex too.
  Coroutine* const co = successor->coroutine;
  if (successor->state.exchange(Waiter::kGranted, std::memory_order_acq_rel) == Waiter::kAsleep) co_wake(co);
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
