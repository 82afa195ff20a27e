#include "coroutine/co_sleep.h"

#include <utility>

#include "coroutine/aio_context_impl.h"
#include "coroutine/coroutine.h"
#include "coroutine/fatal.h"

namespace coimg {

CoSleep::~CoSleep() {
  if (sleeper_ != nullptr) fatal("CoSleep destroyed while coroutine '%s' sleeps in it", sleeper_->name());
}

bool CoSleep::sleep_until(const Deadline& deadline) {
  Coroutine* self = Coroutine::self();
  if (sleeper_ != nullptr) {
    fatal("coroutine '%s' sleeps in a CoSleep in which '%s' already does", self->name(), sleeper_->name());
  }
  sleeper_ = self;
  woken_ = false;
  // When wake() was first, the coroutine is on its way, and the time does not matter any more.
  if (!yield_until(deadline, [this] { return std::exchange(sleeper_, nullptr) != nullptr; })) return true;
  if (!woken_) fatal("coroutine '%s' was entered while it sleeps", self->name());
  return false;
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

bool yield_until_fd_readable(int fd, const Deadline& deadline) {
  Coroutine* self = Coroutine::self();
  FdHandlers& handlers = self->aio_context().impl().fd_handlers;
  handlers.add_readable(fd, [self, fd, &handlers] {
    handlers.remove_readable(fd);
    self->enter();
  });
  return yield_until(deadline, [fd, &handlers] {
    handlers.remove_readable(fd);
    return true;
  });
}

bool yield_until_fd_writable(int fd, const Deadline& deadline) {
  Coroutine* self = Coroutine::self();
  FdHandlers& handlers = self->aio_context().impl().fd_handlers;
  handlers.add_writable(fd, [self, fd, &handlers] {
    handlers.remove_writable(fd);
    self->enter();
  });
  return yield_until(deadline, [fd, &handlers] {
    handlers.remove_writable(fd);
    return true;
  });
}

void yield_until_fd_readable(int fd) { static_cast<void>(yield_until_fd_readable(fd, Deadline::never())); }

void yield_until_fd_writable(int fd) { static_cast<void>(yield_until_fd_writable(fd, Deadline::never())); }

}  // namespace coimg
