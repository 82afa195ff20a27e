#include "coroutine/deadline.h"

#include "coroutine/coroutine.h"

namespace coimg {

Deadline Deadline::after(ClockType clock, int64_t ns) {
  const int64_t now = clock_now_ns(clock);
  return ns >= kNever - now ? never() : at(clock, now + ns);
}

bool yield_until(const Deadline& deadline, const std::function<bool()>& withdraw) {
  if (deadline.is_never()) {
    Coroutine::yield();
    return true;
  }
  Coroutine* const self = Coroutine::self();
  bool expired = false;
  Timer timer(self->aio_context(), deadline.clock(), [&] {
    if (!withdraw()) return;
    expired = true;
    self->enter();
  });
  timer.arm_at(deadline.ns());
  Coroutine::yield();
  return !expired;
}

}  // namespace coimg
