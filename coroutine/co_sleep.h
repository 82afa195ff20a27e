// Sleeping in a coroutine.
#pragma once

#include <cstdint>

#include "coroutine/aio_context.h"
#include "coroutine/annotations.h"
#include "coroutine/deadline.h"

namespace coimg {

/// Sleeps for `ns` nanoseconds of `clock`; the thread goes on with other work.
void co_sleep_ns(ClockType clock, int64_t ns) coroutine_fn;

/// A sleep that can be cut short.
///
/// Belongs to one AioContext. One coroutine sleeps at a time; wake() may be called from any code of that context, and
/// does nothing when nobody sleeps. The destructor asserts that nobody sleeps.
class CoSleep {
 public:
  CoSleep() = default;
  ~CoSleep();
  CoSleep(const CoSleep&) = delete;
  CoSleep& operator=(const CoSleep&) = delete;

  /// Returns true when the time has passed, false when wake() ended the sleep.
  bool sleep_until(const Deadline& deadline) coroutine_fn;
  bool sleep_ns(ClockType clock, int64_t ns) coroutine_fn { return sleep_until(Deadline::after(clock, ns)); }
  void wake() coroutine_mixed_fn;

 private:
  Coroutine* sleeper_ = nullptr;
  bool woken_ = false;
};

/// Suspends the coroutine until `fd` is readable or writable. One coroutine may wait for each of the two.
void yield_until_fd_readable(int fd) coroutine_fn;
void yield_until_fd_writable(int fd) coroutine_fn;
/// The same with a deadline: returns whether `fd` became ready before it.
[[nodiscard]] bool yield_until_fd_readable(int fd, const Deadline& deadline) coroutine_fn;
[[nodiscard]] bool yield_until_fd_writable(int fd, const Deadline& deadline) coroutine_fn;

}  // namespace coimg
