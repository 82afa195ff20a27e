// Giving way in tests of coroutines.
#pragma once

#include "coroutine/aio_context.h"
#include "coroutine/annotations.h"
#include "coroutine/coroutine.h"

namespace coimg {

/// Goes to the end of the row of runnable coroutines, `times` times: whoever can run gets that many turns.
inline void let_others_run(unsigned times = 10) coroutine_fn {
  for (unsigned i = 0; i < times; ++i) {
    AioContext::current().co_schedule(Coroutine::self());
    Coroutine::yield();
  }
}

}  // namespace coimg
