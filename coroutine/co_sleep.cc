#include "coroutine/co_sleep.h"

#include <utility>

#include "coroutine/aio_context_impl.h"
#include "coroutine/coroutine.h"
#include "coroutine/fatal.h"

namespace coimg {
namespace {

/// `add` and `remove` say for which of the two directions.
bool wait_for_fd(int fd, const Deadline& deadline, void (FdHandlers::*add)(int, FdHandlers::Callback),
                 void (FdHandlers::*remove)(int)) coroutine_fn {
  Coroutine* self = Coroutine::self();
  FdHandlers& handlers = self->aio_context().impl().fd_handlers;
  bool ready = false;
  (handlers.*add)(fd, [self, fd, remove, &handlers, &ready] {
    (handlers.*remove)(fd);
    ready = true;
    self->enter();
  });
  const bool in_time = yield_until(deadline, [fd, remove, &handlers] {
    (handlers.*remove)(fd);
    return true;
  });
  if (in_time && !ready) fatal("coroutine '%s' was entered while it waits for fd %d", self->name(), fd);
  return in_time;
}

}  // namespace

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
  return wait_for_fd(fd, deadline, &FdHandlers::add_readable, &FdHandlers::remove_readable);
}

bool yield_until_fd_writable(int fd, const Deadline& deadline) {
  return wait_for_fd(fd, deadline, &FdHandlers::add_writable, &FdHandlers::remove_writable);
}

void yield_until_fd_readable(int fd) { static_cast<void>(yield_until_fd_readable(fd, Deadline::never())); }

void yield_until_fd_writable(int fd) { static_cast<void>(yield_until_fd_writable(fd, Deadline::never())); }

}  // namespace coimg
