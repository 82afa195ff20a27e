#include "coroutine/context_switch.h"

const char COIMG_RUNTIME_BUILD = 1;

namespace coimg {

void fiber_init(Fiber& fiber, Stack* stack, void* top, void (*main)(boost::context::detail::transfer_t)) {
  const auto usable = static_cast<size_t>(static_cast<char*>(top) - stack->low);
  fiber.suspended = boost::context::detail::make_fcontext(top, usable, main);
#if COIMG_ASAN
  fiber.stack = stack;
#endif
#if COIMG_TSAN
  fiber.tsan_fiber = __tsan_create_fiber(0);
#endif
}

void fiber_destroy([[maybe_unused]] Fiber& fiber) {
#if COIMG_TSAN
  __tsan_destroy_fiber(fiber.tsan_fiber);
#endif
}

}  // namespace coimg
