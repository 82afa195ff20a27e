// Moving a thread from one stack to another: Boost.Context's fcontext, and telling the sanitizers about it.
//
// Only coroutine.cc uses this. The functions are inline, as an enter and a yield take nanoseconds together.
#pragma once

#include <boost/context/detail/fcontext.hpp>
#include <cstddef>

#include "coroutine/compiler.h"
#include "coroutine/stack.h"

#if COIMG_ASAN
#include <sanitizer/common_interface_defs.h>
#endif
#if COIMG_TSAN
#include <sanitizer/tsan_interface.h>
#endif

namespace coimg {

/// The machine state of a coroutine: where it is suspended, or, while it runs, where it came from.
///
/// fcontext_t values are used up by one jump: each side gets the other's new one when it continues.
struct Fiber {
  boost::context::detail::fcontext_t suspended = nullptr;  ///< resume here
  boost::context::detail::fcontext_t enterer = nullptr;    ///< go back here
#if COIMG_ASAN
  Stack* stack = nullptr;
  void* fake_stack = nullptr;  ///< ASan's own frames of this fiber, while it is suspended
  const void* enterer_low = nullptr;
  size_t enterer_bytes = 0;
#endif
#if COIMG_TSAN
  void* tsan_fiber = nullptr;
  void* tsan_enterer = nullptr;
#endif
};

/// Prepares a fiber that runs `main` on `stack`, from `top` down. The first fiber_enter() passes `argument`; `main`
/// hands what it got to fiber_arrived(), and never returns: it calls fiber_end().
void fiber_init(Fiber& fiber, Stack* stack, void* top, void (*main)(boost::context::detail::transfer_t));

/// Frees what fiber_init() made beside the stack.
void fiber_destroy(Fiber& fiber);

/// Runs the fiber until it yields (returns false) or ends (returns true).
inline bool fiber_enter(Fiber& fiber, void* argument) {
#if COIMG_ASAN
  void* own_fake_stack = nullptr;
  __sanitizer_start_switch_fiber(&own_fake_stack, fiber.stack->low,
                                 static_cast<size_t>(fiber.stack->top() - fiber.stack->low));
#endif
#if COIMG_TSAN
  fiber.tsan_enterer = __tsan_get_current_fiber();
  __tsan_switch_to_fiber(fiber.tsan_fiber, 0);
#endif
  const auto back = boost::context::detail::jump_fcontext(fiber.suspended, argument);
#if COIMG_ASAN
  __sanitizer_finish_switch_fiber(own_fake_stack, nullptr, nullptr);
#endif
  fiber.suspended = back.fctx;
  return back.data != nullptr;
}

/// What a fiber does when control arrives in it.
inline void fiber_arrived(Fiber& fiber, boost::context::detail::transfer_t from) {
#if COIMG_ASAN
  __sanitizer_finish_switch_fiber(fiber.fake_stack, &fiber.enterer_low, &fiber.enterer_bytes);
#endif
  fiber.enterer = from.fctx;
}

/// Suspends the running fiber; control returns from fiber_enter(), and from here with the next one.
inline void fiber_yield(Fiber& fiber) {
#if COIMG_ASAN
  __sanitizer_start_switch_fiber(&fiber.fake_stack, fiber.enterer_low, fiber.enterer_bytes);
#endif
#if COIMG_TSAN
  __tsan_switch_to_fiber(fiber.tsan_enterer, 0);
#endif
  fiber_arrived(fiber, boost::context::detail::jump_fcontext(fiber.enterer, nullptr));
}

/// Leaves the running fiber for good.
[[noreturn]] inline void fiber_end(Fiber& fiber) {
#if COIMG_ASAN
  __sanitizer_start_switch_fiber(nullptr, fiber.enterer_low, fiber.enterer_bytes);  // null: its fake frames are freed
#endif
#if COIMG_TSAN
  __tsan_switch_to_fiber(fiber.tsan_enterer, 0);
#endif
  boost::context::detail::jump_fcontext(fiber.enterer, &fiber);
  __builtin_unreachable();
}

}  // namespace coimg
