// How much of an image a copy has to store.
#pragma once

#include <cstdint>

#include "block/node.h"
#include "block/util/result.h"
#include "coroutine/annotations.h"

namespace coimg {

/// Bytes of the units (clusters of a target) in which some layer of `source` stores data; `unit` is a power of two.
/// What is known to read as zeros is none. Errors: those of block status.
Result<uint64_t> co_data_bytes(BlockNode& source, uint64_t unit) coroutine_fn;

}  // namespace coimg
