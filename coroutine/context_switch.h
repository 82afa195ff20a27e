// Moving a thread from one stack to another: Boost.Context's fcontext, and telling the sanitizers about it.
//
// Used by coroutine.h and coroutine.cc only. The functions are inline, as an enter and a yield take nanoseconds
// together.
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

/// boost::context's jump_fcontext(): continues at `to`, and returns when somebody jumps back here.
///
/// On x86-64 without the call instruction, whose return address the jump never uses: processors predict returns from a
/// stack of the calls they saw, and that stack would be wrong for each return after a switch. Worth 15 ns an enter and
/// yield.
[[gnu::always_inline]] inline boost::context::detail::transfer_t jump(boost::context::detail::fcontext_t to,
                                                                      void* data) {
#if defined(__x86_64__) && !defined(__AVX512F__)
  boost::context::detail::transfer_t from;
  asm volatile(
      "leaq -128(%%rsp), %%rsp\n\t"  // the red zone
      "leaq 1f(%%rip), %%rcx\n\t"
      "pushq %%rcx\n\t"
      "jmp *jump_fcontext@GOTPCREL(%%rip)\n"
      "1:\tsubq $-128, %%rsp"
      : "=a"(from.fctx), "=d"(from.data), "+D"(to), "+S"(data)
      :
      : "rcx", "r8", "r9", "r10", "r11", "st", "st(1)", "st(2)", "st(3)", "st(4)", "st(5)", "st(6)", "st(7)", "mm0",
        "mm1", "mm2", "mm3", "mm4", "mm5", "mm6", "mm7", "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7",
        "xmm8", "xmm9", "xmm10", "xmm11", "xmm12", "xmm13", "xmm14", "xmm15", "cc", "memory");
  return from;
#else
  return boost::context::detail::jump_fcontext(to, data);
#endif
}

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
  const auto back = jump(fiber.suspended, argument);
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
  fiber_arrived(fiber, jump(fiber.enterer, nullptr));
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
