// RateLimiter: a token bucket whose empty state is a co_sleep.
#pragma once

#include <cstdint>

#include "coroutine/annotations.h"

namespace coimg {

/// Lets `bytes_per_second` through on average; a request larger than the bucket is let through and paid off afterwards.
/// Waiters go in order. Belongs to one AioContext.
class RateLimiter {
 public:
  explicit RateLimiter(uint64_t bytes_per_second);
  /// Sleeps until `bytes` may pass.
  void take(uint64_t bytes) coroutine_fn;

 private:
  uint64_t bytes_per_second_;
  int64_t free_at_ns_ = 0;  ///< monotonic time at which the bucket is paid off
};

}  // namespace coimg
