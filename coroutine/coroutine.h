// Coroutine: a stackful coroutine after QEMU's model.
//
// A coroutine runs on a stack of its own until it yields or returns; control then goes back to whoever entered it
// last. It may be entered again from anywhere, also from another coroutine (nesting) and from another thread, as
// long as nobody is inside it. When its entry function returns, the coroutine is gone.
#pragma once

#include <atomic>
#include <memory>
#include <type_traits>
#include <utility>

#include "coroutine/annotations.h"
#include "coroutine/context_switch.h"
#include "coroutine/thread_state.h"
#include "coroutine/trace.h"

namespace coimg {

class AioContext;

class Coroutine {
 public:
  using EntryFunction = void (*)(void* argument);

  Coroutine(const Coroutine&) = delete;
  Coroutine& operator=(const Coroutine&) = delete;

  /// Makes a coroutine that will run `entry(argument)`; nothing runs before the first enter().
  ///
  /// `entry` is a coroutine_fn. `name` must outlive the coroutine (a literal); it appears in messages and in gdb.
  /// The coroutine belongs to the calling thread's AioContext until it is entered elsewhere.
  /// Errors: aborts when no stack can be had, as there is nobody to report to.
  [[nodiscard]] static Coroutine* create(EntryFunction entry, void* argument, const char* name = "coroutine");

  /// The same for any callable (mark lambdas coroutine_fn). The callable is moved into the coroutine and destroyed
  /// on its stack when it returns.
  template <typename Callable>
    requires std::is_invocable_v<std::decay_t<Callable>&>
  [[nodiscard]] static Coroutine* create(Callable&& callable, const char* name = "coroutine") {
    using Stored = std::decay_t<Callable>;
    auto* stored = new Stored(std::forward<Callable>(callable));
    return create(
        [](void* opaque) {
          assume_in_coroutine();
          const std::unique_ptr<Stored> own(static_cast<Stored*>(opaque));
          (*own)();
        },
        stored, name);
  }

  /// Runs the coroutine on the calling thread until it yields or returns.
  ///
  /// Context: any. Aborts, naming both sides, when the coroutine is already entered or scheduled elsewhere. In builds
  /// with assertions that is certain. In others it is certain for misuse by one thread, and when one enters what has
  /// long been entered by another; two that enter it within the same few nanoseconds may both come through, as an
  /// atomic claim would make an enter and yield take half as long again.
  void enter();

  /// Like enter(), but does nothing when the coroutine is running or has entered another one.
  void enter_if_inactive();

  /// Like enter(), but in `context`: at once when that is the calling thread's, else by its loop.
  void enter_in(AioContext& context);

  /// Suspends the calling coroutine; control returns to the caller of enter(). Aborts outside a coroutine.
  static void yield() coroutine_fn;

  /// A pointer that coroutines get from the one that creates them; the runtime makes no use of it. Null until it is set
  /// in one of those above, and outside of coroutines.
  static void set_inherited(void* pointer) coroutine_fn;
  [[nodiscard]] static void* inherited();

  /// The running coroutine; never null inside one.
  static Coroutine* self() coroutine_fn;

  /// The running coroutine, or null when the thread runs none.
  static Coroutine* self_or_null();

  static bool in_coroutine() { return self_or_null() != nullptr; }

  /// True while the coroutine runs or waits for a coroutine that it entered itself.
  [[nodiscard]] bool entered() const;

  /// The context that the coroutine last ran in: where co_wake() schedules it.
  [[nodiscard]] AioContext& aio_context() const;

  [[nodiscard]] const char* name() const;

  /// Tells the analysis that the caller runs inside a coroutine, and aborts when that is not so.
  static void assume_in_coroutine() CO_ASSERT_CAPABILITY(coroutine_context);

  struct Private;  ///< What the runtime keeps; see coroutine_private.h.
  Private& priv();

 private:
  enum class State : unsigned char { kSuspended, kEntered, kEnded };

  Coroutine() = default;
  ~Coroutine() = default;
  [[noreturn]] static void refuse_outside(const char* function);

  // What an enter and a yield touch. The rest is in Private.
  Fiber fiber_;
  /// kEntered from enter() on until control is back there: the thread runs it or it waits for one that it entered.
  /// Atomic for those who wait in other threads for what it holds, and to claim it.
  std::atomic<State> state_{State::kSuspended};
};

inline Coroutine* Coroutine::self_or_null() { return thread_state().current; }

inline Coroutine* Coroutine::self() {
  Coroutine* self = thread_state().current;
  if (self == nullptr) [[unlikely]]
    refuse_outside("self");
  return self;
}

inline void Coroutine::yield() {
  Coroutine* self = thread_state().current;
  if (self == nullptr) [[unlikely]]
    refuse_outside("yield");
  trace("yield", self);
  fiber_yield(self->fiber_);
}

inline bool Coroutine::entered() const { return state_.load(std::memory_order_relaxed) == State::kEntered; }

}  // namespace coimg
