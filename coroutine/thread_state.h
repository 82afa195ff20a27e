// ThreadState: what the runtime knows about a thread. Internal to the runtime.
#pragma once

#include "coroutine/compiler.h"

namespace coimg {

class AioContext;
class Coroutine;

/// Trivial, so that access needs no initialisation guard.
struct ThreadState {
  Coroutine* current;   ///< the running coroutine
  AioContext* context;  ///< the context whose loop runs here, or that the thread made first
};

#if defined(__x86_64__)

/// The calling thread's. Do not keep the reference across a yield: the coroutine may go on in another thread.
///
/// Spelled in assembly so that it can be inline: a compiler may keep the address of a thread_local variable for a whole
/// function, but it never merges two volatile asm statements.
[[gnu::always_inline]] inline ThreadState& thread_state() {
  ThreadState* state;
  asm volatile("movq %%fs:0, %0\n\taddq coimg_thread_state@gottpoff(%%rip), %0" : "=r"(state) : : "cc");
  return *state;
}

#else

COIMG_THREAD_LOCAL_ACCESSOR ThreadState& thread_state();

#endif

}  // namespace coimg
