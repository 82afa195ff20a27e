// What a copy is going to write.
#pragma once

#include <cstdint>
#include <functional>

#include "block/node.h"
#include "block/util/result.h"
#include "coroutine/annotations.h"

namespace coimg {

/// Told of each write of a copy, in order.
using WriteVisitor = std::function<Result<void>(uint64_t offset, uint64_t bytes)>;

/// How much one write of such a copy has at most; `source` may be null for one that has no compressed clusters.
uint64_t copy_write_bytes(const BlockNode* source, uint64_t zero_alignment);

/// Calls `visit` for the writes that co_copy() with its default options makes to a fresh target without a backing file
/// that likes `zero_alignment`. With `read_data` the data are looked at, one read after the other; without, none of
/// them counts as zeros. Memory: a chunk.
/// Errors: those of block status and of reading, with the offset; the visitor's.
Result<void> co_forecast_copy(BlockNode& source, uint64_t zero_alignment, bool read_data, const WriteVisitor& visit)
    coroutine_fn;

}  // namespace coimg
