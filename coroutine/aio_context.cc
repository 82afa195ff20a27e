// The event loop: waiting, and the order in which things run.
//
// Sleeping and waking, without a system call unless the loop really sleeps. All four are sequentially consistent:
//
//     loop                               notify(), after it has published the work
//     1. sleeping = true                 a. notified = true, was it false?
//     2. notified? work? -> no sleep     b. then if sleeping: wake
//
// Either (b) sees the 1 and writes, or (a) came before 2, which then does not sleep. A second notify() that finds the
// flag set may do nothing, because then 2 has not yet cleared it. A loop without file descriptors sleeps on `notified`
// itself, a futex; one with some sleeps in epoll, and waking it is a write to its eventfd.
//
// Which of the two it is, is decided once for each wait, under the big lock where the loop has that: while it waits,
// threads that hold the lock may add and remove handlers. They wake it then, so that it decides again.
#include "coroutine/aio_context.h"

#include <sched.h>

#include <algorithm>
#include <utility>

#include "coroutine/aio_context_impl.h"
#include "coroutine/fatal.h"
#include "coroutine/futex.h"
#include "coroutine/main_loop_lock.h"
#include "coroutine/stack.h"

namespace coimg {
namespace {

/// How long an idle bottom half may wait; the number is in schedule_idle()'s contract.
constexpr int64_t kIdleNs = 10'000'000;

/// The longest sleep with a wall-clock timer armed, as nothing wakes us when someone sets that clock.
constexpr int64_t kRealtimeCheckNs = 1'000'000'000;

/// Where busy polling begins when it seems to pay: about the cost of a sleep and a wake-up.
constexpr int64_t kFirstPollNs = 4'000;

/// Makes a context the calling thread's for as long as its loop runs.
class CurrentScope {
 public:
  explicit CurrentScope(AioContext* context) : previous_(std::exchange(thread_state().context, context)) {
    if (previous_ == nullptr) prepare_thread_for_stacks();  // else the thread has made one, or was here before
  }
  ~CurrentScope() { thread_state().context = previous_; }
  CurrentScope(const CurrentScope&) = delete;
  CurrentScope& operator=(const CurrentScope&) = delete;

 private:
  AioContext* previous_;
};

/// The shorter of two times to sleep, of which -1 is the longest.
int64_t sooner(int64_t a, int64_t b) {
  if (a < 0) return b;
  return b < 0 ? a : std::min(a, b);
}

COIMG_THREAD_LOCAL_ACCESSOR void make_context_of_thread() {
  thread_local std::unique_ptr<AioContext> own;
  own = std::make_unique<AioContext>();  // makes itself the current one
}

}  // namespace

AioContext::Impl::Impl(AioContext& owner_context) : owner(owner_context), fd_handlers(wakeup.fd()) {}

AioContext::Impl::~Impl() {
  while (callers.load() != 0) ::sched_yield();
  collect_bottom_halves();
  while (ready_head != nullptr) {
    BottomHalf::State* state = ready_head;
    ready_head = state->next.load(std::memory_order_relaxed);
    if ((state->flags.load() & (BottomHalf::State::kDeleted | BottomHalf::State::kOneshot)) != 0) delete state;
  }
  // Handles may outlive the loop, when a thread ends before the static objects do.
  for (BottomHalf::State* state = live; state != nullptr; state = state->next_live) state->context = nullptr;
}

AioContext::AioContext() : impl_(std::make_unique<Impl>(*this)) {
  prepare_thread_for_stacks();
  impl_->enter_bottom_half = new_bottom_half([this] { impl_->enter_scheduled(); }, "enter scheduled coroutines");
  impl_->enter_state = impl_->enter_bottom_half->state_;
  ThreadState& thread = thread_state();
  if (thread.context == nullptr) thread.context = this;
}

AioContext::~AioContext() {
  impl_->engine.reset();
  impl_->enter_bottom_half.reset();
  ThreadState& thread = thread_state();
  if (thread.context == this) thread.context = nullptr;
}

AioContext& AioContext::current() {
  if (thread_state().context == nullptr) make_context_of_thread();
  return *thread_state().context;
}

bool AioContext::poll(bool blocking) {
  if (const Coroutine* co = Coroutine::self_or_null()) {
    fatal("coroutine '%s' called AioContext::poll(), which blocks its thread", co->name());
  }
  const CurrentScope current(this);
  if (impl_->submit_hook) impl_->submit_hook();

  FdHandlers::Ready ready;
  impl_->wait_for_events(ready, blocking);

  // Bottom halves last: those that the other callbacks schedule, as co_wake() does, need not wait for another
  // iteration.
  bool progress = impl_->fd_handlers.dispatch(ready);
  progress |= impl_->run_timers();
  progress |= impl_->run_bottom_halves();
  return progress;
}

void AioContext::Impl::wait_for_events(FdHandlers::Ready& ready, bool blocking) {
  const Sleep how = fd_handlers.none_waitable() ? kForNotify : kForEvents;
  if (blocking) {
    sleeping.store(how);
    int64_t ns = notified.exchange(0) != 0 ? 0 : sleep_ns();
    if (ns != 0) ns = sooner(ns, trim_stack_pool());
    const MainLoopLockPause others_may_run(holds_big_lock, ns != 0);
    if (ns == 0 || !busy_poll(ready, how, ns)) sleep(ready, how, ns);
    sleeping.store(kAwake);
  } else {
    const MainLoopLockPause others_may_run(holds_big_lock, false);
    if (how == kForEvents) fd_handlers.wait(ready, 0);
  }
}

void AioContext::Impl::sleep(FdHandlers::Ready& ready, Sleep how, int64_t ns) {
  if (how == kForEvents) {
    fd_handlers.wait(ready, ns);
  } else if (ns != 0) {
    futex_wait(notified, 0, ns);
  }
}

int64_t AioContext::Impl::sleep_ns() {
  collect_bottom_halves();
  int64_t ns = fd_handlers.any_always_ready() ? 0 : -1;
  for (BottomHalf::State* state = ready_head; state != nullptr; state = state->next.load(std::memory_order_relaxed)) {
    const unsigned flags = state->flags.load();
    if ((flags & BottomHalf::State::kDeleted) != 0) return 0;
    if ((flags & BottomHalf::State::kScheduled) == 0) continue;  // cancelled
    if ((flags & BottomHalf::State::kIdle) == 0) return 0;
    ns = sooner(ns, kIdleNs);
  }
  for (const ClockType clock : {ClockType::kRealtime, ClockType::kMonotonic, ClockType::kVirtual}) {
    if (timers(clock).empty()) continue;
    const int64_t deadline = timers(clock).first_deadline_ns(), now = now_ns(clock);
    const int64_t left = deadline > now ? deadline - now : 0;
    if (clock == ClockType::kVirtual && left > 0) continue;  // that time passes only when the program says so
    ns = sooner(ns, clock == ClockType::kRealtime ? std::min(left, kRealtimeCheckNs) : left);
  }
  return ns;
}

bool AioContext::Impl::busy_poll(FdHandlers::Ready& ready, Sleep how, int64_t sleep_ns) {
  if (max_poll_ns == 0) return false;
  const int64_t begin = now_ns(ClockType::kMonotonic);
  const int64_t limit = sooner(poll_ns, sleep_ns);
  do {
    if (how == kForEvents) fd_handlers.wait(ready, 0);
    if (ready.count > 0 || notified.load() != 0) return true;
  } while (now_ns(ClockType::kMonotonic) - begin < limit);

  // It did not pay. Would it have, with a longer limit?
  const int64_t sleep_begin = now_ns(ClockType::kMonotonic);
  sleep(ready, how, sleep_ns);
  const int64_t waited = now_ns(ClockType::kMonotonic) - sleep_begin + limit;
  const int64_t max = max_poll_ns;
  poll_ns = waited <= max ? std::min(std::max(poll_ns * 2, kFirstPollNs), max) : poll_ns / 2;
  return true;
}

bool AioContext::Impl::run_timers() {
  const uint64_t newest = timer_sequence;
  bool progress = false;
  for (const ClockType clock : {ClockType::kRealtime, ClockType::kMonotonic, ClockType::kVirtual}) {
    if (!timers(clock).empty()) progress |= timers(clock).fire_due(now_ns(clock), newest);
  }
  return progress;
}

int64_t AioContext::Impl::now_ns(ClockType clock) const {
  return clock == ClockType::kVirtual ? virtual_now_ns : clock_now_ns(clock);
}

void AioContext::notify() { impl_->notify(); }

void AioContext::Impl::notify() {
  if (notified.exchange(1) != 0) return;
  switch (sleeping.load()) {
    case kForEvents:
      return wakeup.set();
    case kForNotify:
      return futex_wake(notified);
  }
}

void AioContext::Impl::notify_if_sleeping() {
  if (sleeping.load() != kAwake) notify();
}

void AioContext::set_fd_handler(int fd, std::function<void()> on_readable, std::function<void()> on_writable) {
  impl_->fd_handlers.set(fd, std::move(on_readable), std::move(on_writable));
  impl_->notify_if_sleeping();
}

void AioContext::set_submit_hook(std::function<void()> hook) { impl_->submit_hook = std::move(hook); }

void AioContext::set_max_poll_ns(int64_t ns) {
  impl_->max_poll_ns = std::max<int64_t>(ns, 0);
  impl_->poll_ns = std::min<int64_t>(impl_->poll_ns, impl_->max_poll_ns);
}

void AioContext::advance_virtual_clock(int64_t ns) {
  impl_->virtual_now_ns += ns;
  impl_->notify_if_sleeping();
}

IoEngine& AioContext::io_engine() {
  if (impl_->engine == nullptr) impl_->engine = make_io_engine(*this);
  return *impl_->engine;
}

}  // namespace coimg
