#include "coroutine/co_sleep.h"

#include <utility>

#include "coroutine/aio_context_impl.h"
#include "coroutine/coroutine.h"
#include "coroutine/fatal.h"

namespace coimg {

CoSleep::~CoSleep() {
  if (sleeper_ != nullptr) fatal("CoSleep destroyed while coroutine '%s' sleeps in it", sleeper_->name());
}

bool CoSleep::sleep_ns(ClockType clock, int64_t ns) {
  Coroutine* self = Coroutine::self();
  if (sleeper_ != nullptr) {
    fatal("coroutine '%s' sleeps in a CoSleep in which '%s' already does", self->name(), sleeper_->name());
  }
  sleeper_ = self;
  woken_ = false;
  bool expired = false;
  Timer timer(self->aio_context(), clock, [this, &expired] {
    if (sleeper_ == nullptr) return;  // wake() was first, and the coroutine has not run since
    expired = true;
    std::exchange(sleeper_, nullptr)->enter();
  });
  timer.arm_after(ns);
  Coroutine::yield();
  if (!expired && !woken_) fatal("coroutine '%s' was entered while it sleeps", self->name());
  return expired;
}

void CoSleep::wake() {
  if (sleeper_ == nullptr) return;
  woken_ = true;
  co_wake(std::exchange(sleeper_, nullptr));
}

void co_sleep_ns(ClockType clock, int64_t ns) {
  CoSleep sleep;
  sleep.sleep_ns(clock, ns);
}

void yield_until_fd_readable(int fd) {
  Coroutine* self = Coroutine::self();
  FdHandlers& handlers = self->aio_context().impl().fd_handlers;
  handlers.add_readable(fd, [self, fd, &handlers] {
    handlers.remove_readable(fd);
    self->enter();
  });
  Coroutine::yield();
}

void yield_until_fd_writable(int fd) {
  Coroutine* self = Coroutine::self();
  FdHandlers& handlers = self->aio_context().impl().fd_handlers;
  handlers.add_writable(fd, [self, fd, &handlers] {
    handlers.remove_writable(fd);
    self->enter();
  });
  Coroutine::yield();
}

}  // namespace coimg
