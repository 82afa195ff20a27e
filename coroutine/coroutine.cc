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

constinit thread_local ThreadState this_thread = {};

/// The first function on a coroutine's stack.
void coroutine_main(boost::context::detail::transfer_t from) noexcept {
  auto* co = static_cast<Coroutine::Private*>(from.data);
  fiber_arrived(co->fiber, from);
  co->entry(co->argument);
  if (co->scheduled_by.load(std::memory_order_relaxed) != nullptr) {
    fatal("coroutine '%s' has ended while it is scheduled by '%s'", co->name,
          co->scheduled_by.load(std::memory_order_relaxed));
  }
  co->entry = nullptr;
  fiber_end(co->fiber);
}

/// Called on the stack of whoever entered it.
void destroy(Coroutine::Private& co) {
  Stack* stack = co.stack;
  fiber_destroy(co.fiber);
  co.~Private();
  release_stack(stack);
}

[[noreturn]] void refuse_enter(const Coroutine::Private& co, const char* scheduled_by) {
  if (co.entry == nullptr) {
    fatal("'%s' cannot enter coroutine '%s': it has ended", running_name(), co.name);
  }
  if (co.entered) {
    fatal("'%s' cannot enter coroutine '%s': coroutine '%s' was already entered by '%s'", running_name(), co.name,
          co.name, co.caller != nullptr ? co.caller->name : "code outside of coroutines");
  }
  fatal("'%s' cannot enter coroutine '%s': it is already scheduled by '%s'", running_name(), co.name, scheduled_by);
}

void check_stack(const Coroutine::Private& co) {
  if (co.stack->guarded) return;
  if (co.fiber.suspended < static_cast<void*>(co.stack->low) || !stack_canary_intact(co.stack)) {
    fatal("stack overflow in coroutine '%s' (%zu KiB; see COIMG_STACK_KIB)", co.name, stack_size_bytes() / 1024);
  }
}

/// Runs `co` once, until it yields or ends, and moves those that it woke to `woken`.
inline void run(Coroutine::Private& co, ThreadState& thread, CoroutineList& woken) {
  const char* scheduled_by = co.scheduled_by.load(std::memory_order_relaxed);
  if (co.entered || scheduled_by != nullptr || co.entry == nullptr) [[unlikely]]
    refuse_enter(co, scheduled_by);

  Coroutine::Private* const caller = thread.current;
  co.caller = caller;
  co.entered = true;
  co.context.store(thread.context, std::memory_order_relaxed);
  thread.current = &co;
  const bool ended = fiber_enter(co.fiber, &co);
  thread.current = caller;

  check_stack(co);
  woken.append(co.woken);
  if (ended) destroy(co);
}

}  // namespace

COIMG_THREAD_LOCAL_ACCESSOR ThreadState& thread_state() { return this_thread; }

const char* running_name() {
  const Coroutine::Private* co = thread_state().current;
  return co != nullptr ? co->name : "code outside of coroutines";
}

void Coroutine::Private::claim_for_schedule() {
  const char* earlier = nullptr;
  if (!scheduled_by.compare_exchange_strong(earlier, running_name(), std::memory_order_acq_rel)) {
    fatal("'%s' cannot schedule coroutine '%s': it was already scheduled by '%s'", running_name(), name, earlier);
  }
}

Coroutine* Coroutine::create(EntryFunction entry, void* argument, const char* name) {
  ThreadState& thread = thread_state();
  if (thread.context == nullptr) [[unlikely]]
    AioContext::current();
  Stack* stack = acquire_stack();
  const auto place = (reinterpret_cast<uintptr_t>(stack->top()) - sizeof(Private)) & ~(kStackAlignment - 1);
  auto* co = new (reinterpret_cast<void*>(place)) Private(stack);
  co->entry = entry;
  co->argument = argument;
  co->name = name;
  co->context.store(thread.context, std::memory_order_relaxed);
  fiber_init(co->fiber, stack, co, coroutine_main);
  return &co->facade;
}

void Coroutine::enter() {
  // This frame cannot change threads, even inside a coroutine: that one waits here, it does not yield.
  ThreadState& thread = thread_state();
  if (thread.context == nullptr) [[unlikely]]
    AioContext::current();

  CoroutineList woken;
  run(*private_, thread, woken);
  for (unsigned runs = 1; !woken.empty(); ++runs) {
    Private* co = woken.pop_front();
    if (runs >= kMaxRunsPerEnter) [[unlikely]] {
      thread.context->impl().push_scheduled(co);
      continue;
    }
    clear_schedule(*co);
    run(*co, thread, woken);
  }
}

void Coroutine::enter_if_inactive() {
  if (!entered()) enter();
}

void Coroutine::yield() {
  ThreadState& thread = thread_state();
  Private* self = thread.current;
  if (self == nullptr) fatal("Coroutine::yield() called outside of a coroutine");
  self->entered = false;
  self->caller = nullptr;
  fiber_yield(self->fiber);
}

Coroutine* Coroutine::self() {
  Private* co = thread_state().current;
  if (co == nullptr) fatal("Coroutine::self() called outside of a coroutine");
  return &co->facade;
}

Coroutine* Coroutine::self_or_null() {
  Private* co = thread_state().current;
  return co != nullptr ? &co->facade : nullptr;
}

bool Coroutine::entered() const { return private_->entered; }

AioContext& Coroutine::aio_context() const { return *private_->context.load(std::memory_order_relaxed); }

const char* Coroutine::name() const { return private_->name; }

void Coroutine::assume_in_coroutine() {
  if (thread_state().current == nullptr) fatal("a function for coroutines was called outside of a coroutine");
}

}  // namespace coimg
