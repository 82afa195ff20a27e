// RateLimiter: a token bucket whose empty state is a co_sleep.
#pragma once

#include <cstdint>

#include "coroutine/aio_context.h"
#include "coroutine/annotations.h"

namespace coimg {

/// Lets `bytes_per_second` through on average; a request larger than the bucket is let through and paid off afterwards.
/// The bucket holds what passes in kBurstNs. Waiters go in order. Belongs to one AioContext.
class RateLimiter {
 public:
  static constexpr int64_t kBurstNs = 100'000'000;

  /// `bytes_per_second` is greater than zero.
  explicit RateLimiter(uint64_t bytes_per_second, ClockType clock = ClockType::kMonotonic);
  /// Sleeps until `bytes` may pass.
  void take(uint64_t bytes) coroutine_fn;

 private:
  uint64_t bytes_per_second_;
  ClockType clock_;
  int64_t free_at_ns_;  ///< time at which the bucket is paid off
};

}  // namespace coimg
