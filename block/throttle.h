// RateLimiter: a token bucket whose empty state is a co_sleep.
#pragma once

#include <cstdint>
#include <functional>

#include "coroutine/aio_context.h"
#include "coroutine/annotations.h"

namespace coimg {

/// Lets `bytes_per_second` through on average; a request larger than the bucket is let through and paid off afterwards.
/// The bucket holds what passes in kBurstNs. Waiters go in order. Belongs to one AioContext.
class RateLimiter {
 public:
  static constexpr int64_t kBurstNs = 100'000'000;

  /// `bytes_per_second` is greater than zero. Sleepers ask `lifted` every tenth of a second whether the limit has gone:
  /// at a low rate one request can be worth minutes, and an interrupted command must not wait for that.
  explicit RateLimiter(uint64_t bytes_per_second, ClockType clock = ClockType::kMonotonic,
                       std::function<bool()> lifted = {});
  /// Sleeps until `bytes` may pass.
  void take(uint64_t bytes) coroutine_fn;

 private:
  uint64_t bytes_per_second_;
  ClockType clock_;
  std::function<bool()> lifted_;
  int64_t free_at_ns_;  ///< time at which the bucket is paid off
};

}  // namespace coimg
