#include "coroutine/coroutine.h"

#include <new>

#include "coroutine/aio_context_impl.h"
#include "coroutine/coroutine_private.h"
#include "coroutine/fatal.h"

namespace coimg {
namespace {

/// After this many coroutines that woke each other, enter() leaves the rest to the event loop: two that never wait for
/// anything else would keep the loop from its signals and timers for ever.
constexpr unsigned kMaxRunsPerEnter = 1024;

constexpr size_t kStackAlignment = 64;  ///< a cache line; the ABI wants 16

constexpr const char* kOutside = "code outside of coroutines";

/// The first function on a coroutine's stack.
void coroutine_main(boost::context::detail::transfer_t from) noexcept {
  auto* co = static_cast<Coroutine::Private*>(from.data);
  fiber_arrived(co->fiber_, from);
  co->entry(co->argument);
  if (co->scheduled_by.load(std::memory_order_relaxed) != nullptr) {
    fatal("coroutine '%s' has ended while it is scheduled by '%s'", co->name,
          co->scheduled_by.load(std::memory_order_relaxed));
  }
  trace("end", co);
  co->state_.store(Coroutine::Private::State::kEnded, std::memory_order_relaxed);
  fiber_end(co->fiber_);
}

/// Called on the stack of whoever entered it.
void destroy(Coroutine::Private& co) {
  Stack* stack = co.stack;
  fiber_destroy(co.fiber_);
  co.~Private();
  stack->tenant = nullptr;
  release_stack(stack);
}

[[noreturn]] void refuse_enter(const Coroutine::Private& co, Coroutine::Private::State state,
                               const char* scheduled_by) {
  switch (state) {
    case Coroutine::Private::State::kEnded:
      fatal("'%s' cannot enter coroutine '%s': it has ended", running_name(), co.name);
    case Coroutine::Private::State::kEntered:
      fatal("'%s' cannot enter coroutine '%s': coroutine '%s' was already entered by '%s'", running_name(), co.name,
            co.name, co.caller != nullptr ? co.caller->name() : kOutside);
    case Coroutine::Private::State::kSuspended:
      break;
  }
  fatal("'%s' cannot enter coroutine '%s': it is already scheduled by '%s'", running_name(), co.name, scheduled_by);
}

/// For a stack without a guard.
void check_canary(const Coroutine::Private& co) {
  if (co.fiber_.suspended < static_cast<void*>(co.stack->low) || !stack_canary_intact(co.stack)) {
    fatal("stack overflow in coroutine '%s' (%zu KiB; see COIMG_STACK_KIB)", co.name, stack_size_bytes() / 1024);
  }
}

/// Marks `co` as entered, unless it is. Returns what it was. See Coroutine::enter() for why there are two ways.
[[gnu::always_inline]] inline Coroutine::Private::State claim_for_enter(Coroutine::Private& co) {
  using State = Coroutine::Private::State;
  State state = State::kSuspended;
#ifdef NDEBUG
  state = co.state_.load(std::memory_order_relaxed);
  if (state == State::kSuspended) [[likely]]
    co.state_.store(State::kEntered, std::memory_order_relaxed);
#else
  co.state_.compare_exchange_strong(state, State::kEntered, std::memory_order_acquire, std::memory_order_relaxed);
#endif
  return state;
}

/// Runs `co` once, until it yields or ends. Returns whether it has ended.
[[gnu::always_inline]] inline bool run(Coroutine::Private& co, ThreadState& thread) {
  const char* const scheduled_by = co.scheduled_by.load(std::memory_order_relaxed);
  const auto state = claim_for_enter(co);
  if (state != Coroutine::Private::State::kSuspended || scheduled_by != nullptr) [[unlikely]]
    refuse_enter(co, state, scheduled_by);
  trace("enter", &co);
  Coroutine* const caller = thread.current;
  co.caller = caller;
  co.context.store(thread.context, std::memory_order_relaxed);
  thread.current = &co;
  const bool ended = fiber_enter(co.fiber_, &co);
  thread.current = caller;
  if (co.unguarded) [[unlikely]]
    check_canary(co);
  if (!ended) co.state_.store(Coroutine::Private::State::kSuspended, std::memory_order_release);
  return ended;
}

/// Runs those that were woken, and those that these wake.
[[gnu::noinline]] void run_woken(CoroutineList woken, ThreadState& thread) {
  for (unsigned runs = 1; !woken.empty(); ++runs) {
    Coroutine::Private* co = woken.pop_front();
    if (runs >= kMaxRunsPerEnter) [[unlikely]] {
      thread.context->impl().push_scheduled(co);
      continue;
    }
    clear_schedule(*co);
    const bool ended = run(*co, thread);
    woken.append(co->woken);
    if (ended) destroy(*co);
  }
}

}  // namespace

const char* running_name() {
  const Coroutine* co = thread_state().current;
  return co != nullptr ? co->name() : kOutside;
}

void Coroutine::Private::claim_for_schedule() {
  const char* earlier = nullptr;
  const char* const by = running_name();
  if (!scheduled_by.compare_exchange_strong(earlier, by, std::memory_order_acq_rel)) {
    fatal("'%s' cannot schedule coroutine '%s': it was already scheduled by '%s'", by, name, earlier);
  }
  trace("schedule", this, by);
}

Coroutine* Coroutine::create(EntryFunction entry, void* argument, const char* name) {
  ThreadState& thread = thread_state();
  if (thread.context == nullptr) [[unlikely]]
    AioContext::current();
  Stack* stack = acquire_stack();
  const uintptr_t place =
      (reinterpret_cast<uintptr_t>(stack->top()) - sizeof(Private)) & ~uintptr_t{kStackAlignment - 1};
  auto* co = new (reinterpret_cast<void*>(place)) Private(stack);
  co->entry = entry;
  co->argument = argument;
  co->name = name;
  if (thread.current != nullptr) co->inherited = Private::of(thread.current).inherited;
  co->context.store(thread.context, std::memory_order_relaxed);
  fiber_init(co->fiber_, stack, co, coroutine_main);
  stack->tenant = co;
  trace("create", co, trace_enabled ? running_name() : nullptr);
  return co;
}

void Coroutine::enter() {
  // This frame cannot change threads, even inside a coroutine: that one waits here, it does not yield.
  ThreadState& thread = thread_state();
  if (thread.context == nullptr) [[unlikely]]
    AioContext::current();
  Private& co = priv();
  const bool ended = run(co, thread);
  if (!ended && co.woken.empty()) [[likely]]
    return;
  const CoroutineList woken = co.woken;
  co.woken = {};
  if (ended) destroy(co);
  if (!woken.empty()) run_woken(woken, thread);
}

void Coroutine::set_inherited(void* pointer) { Private::of(self()).inherited = pointer; }

void* Coroutine::inherited() {
  const Coroutine* const co = thread_state().current;
  return co != nullptr ? Private::of(co).inherited : nullptr;
}

void Coroutine::enter_if_inactive() {
  if (!entered()) enter();
}

void Coroutine::enter_in(AioContext& context) {
  if (&context == &AioContext::current()) {
    enter();
  } else {
    context.co_schedule(this);
  }
}

void Coroutine::refuse_outside(const char* function) {
  fatal("Coroutine::%s() called outside of a coroutine", function);
}

AioContext& Coroutine::aio_context() const { return *Private::of(this).context.load(std::memory_order_relaxed); }

const char* Coroutine::name() const { return Private::of(this).name; }

void Coroutine::assume_in_coroutine() {
  if (thread_state().current == nullptr) fatal("a function for coroutines was called outside of a coroutine");
}

}  // namespace coimg
