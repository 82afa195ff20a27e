// Deadline: when to give up waiting.
#pragma once

#include <cstdint>
#include <functional>

#include "coroutine/aio_context.h"
#include "coroutine/annotations.h"

namespace coimg {

/// A point in time of one clock, or never. A plain value: take one for a whole operation and hand it to each wait.
class Deadline {
 public:
  static Deadline never() { return {}; }
  static Deadline at(ClockType clock, int64_t ns) { return {clock, ns}; }
  /// `ns` from now.
  static Deadline after(ClockType clock, int64_t ns);

  [[nodiscard]] bool is_never() const { return ns_ == kNever; }
  [[nodiscard]] bool passed() const { return !is_never() && clock_now_ns(clock_) >= ns_; }
  [[nodiscard]] ClockType clock() const { return clock_; }
  [[nodiscard]] int64_t ns() const { return ns_; }

 private:
  static constexpr int64_t kNever = INT64_MAX;

  Deadline() = default;
  Deadline(ClockType clock, int64_t ns) : clock_(clock), ns_(ns) {}

  ClockType clock_ = ClockType::kMonotonic;
  int64_t ns_ = kNever;
};

/// Any wait with a deadline: suspends the coroutine until somebody wakes it, or the time is up.
///
/// The caller has first put a note of itself where the waker will find it. When the time is up, `withdraw` takes that
/// note away again, on the coroutine's thread, and returns true; it returns false when the note has been found, so that
/// a wake-up is under way, which then counts. Returns whether the coroutine was woken before the deadline.
bool yield_until(const Deadline& deadline, const std::function<bool()>& withdraw) coroutine_fn;

}  // namespace coimg
