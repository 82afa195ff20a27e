#include "coroutine/thread_state.h"

namespace coimg {

// The assembly in the header names it: it must keep its name, and stay, whatever link-time optimisation sees.
#if defined(__clang__)
[[gnu::used]]
#else
[[gnu::used, gnu::externally_visible]]
#endif
constinit thread_local ThreadState this_thread_state __asm__("coimg_thread_state") = {};

#if !defined(__x86_64__)
ThreadState& thread_state() { return this_thread_state; }
#endif

}  // namespace coimg
