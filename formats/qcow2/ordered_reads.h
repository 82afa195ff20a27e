// OrderedReads: many reads in flight, their results in order.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <optional>
#include <span>

#include "block/node.h"
#include "block/util/offsets.h"
#include "block/util/result.h"
#include "coroutine/annotations.h"

namespace coimg::qcow2 {

/// Reads [offset, offset + memory.size()); what lies beyond the end of the file is zeros, as for all qcow2 metadata.
Result<void> read_padded(BlockNode& file, HostOffset offset, std::span<std::byte> memory) coroutine_fn;

/// A read to be done. With bytes 0 nothing is read, but the job still takes its turn.
struct OrderedRead {
  HostOffset offset;
  size_t bytes = 0;
  uint64_t tag = 0;  ///< the caller's
};

/// The next job, or nothing at the end. Called in order; does not yield.
using NextRead = std::function<std::optional<OrderedRead>()>;
/// Gets the results in the order of the jobs, one at a time; a coroutine_fn. The bytes are valid, and may be changed,
/// during the call. `status` is the read's own; returning an error ends everything.
using ConsumeRead =
    std::function<Result<void>(const OrderedRead& read, const Result<void>& status, std::span<std::byte> bytes)>;

/// Runs all jobs with up to `depth` in flight, so that the next tables arrive while one is looked at.
///
/// Memory: `depth` buffers of `max_bytes`, which no job may exceed. Errors: the first that `consume` returned.
Result<void> read_in_order(BlockNode& file, unsigned depth, size_t max_bytes, const NextRead& next,
                           const ConsumeRead& consume) coroutine_fn;

}  // namespace coimg::qcow2
