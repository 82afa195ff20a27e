// run_bench(): many equal requests at once, to see how fast an image is.
#pragma once

#include <cstddef>
#include <cstdint>

#include "block/node.h"
#include "block/util/result.h"

namespace coimg {

/// What to send.
struct BenchPlan {
  bool write = false;          ///< else read
  uint64_t count = 75000;      ///< requests in all
  uint64_t depth = 64;         ///< requests in flight
  uint64_t offset = 0;         ///< of the first request
  uint64_t bytes = 4096;       ///< a request
  uint64_t step_bytes = 4096;  ///< from the start of one request to that of the next; past the end of the disk it wraps
  std::byte pattern{0};        ///< what is written
  uint64_t flush_interval = 0;  ///< flush when this many requests, or a multiple, are left to do; 0: never
  bool drain_for_flush = true;  ///< no request is in flight during a flush
};

/// The most requests that can be in flight: each has a coroutine of its own, and a buffer.
inline constexpr uint64_t kMaxBenchDepth = 65536;

/// Sends the requests. After the first one that fails no more are sent, and those in flight are waited for.
/// Errors: "Failed request: CAUSE"; EIO for a request that is not inside the disk; ENOMEM for the buffers.
Result<void> run_bench(BlockNode& node, const BenchPlan& plan) coroutine_fn;

}  // namespace coimg
