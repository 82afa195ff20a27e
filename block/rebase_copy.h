// Keeping what a guest sees while the backing file of its image is exchanged for another one.
#pragma once

#include <cstdint>
#include <functional>

#include "block/driver.h"
#include "block/node.h"
#include "block/util/result.h"
#include "coroutine/annotations.h"

namespace coimg {

struct RebaseCopyOptions {
  unsigned workers = 8;                    ///< requests in flight, at least 1
  ProgressCallback on_progress = {};       ///< bytes
  std::function<bool()> should_stop = {};  ///< asked between requests: end with ECANCELED
};

/// Copies into `overlay` each cluster that it does not have itself and in which its backing chain and `new_backing`
/// differ. A null `new_backing`, and what lies behind an end, reads as zeros.
///
/// Where `new_backing` is a member of the chain only what lies above it is looked at. Memory: see transfer_size.h. Does
/// not flush. Errors: what failed, in qemu-img's words; the overlay shows what it did before in any case.
Result<void> co_copy_difference(BlockNode& overlay, BlockNode* new_backing, const RebaseCopyOptions& options)
    coroutine_fn;

}  // namespace coimg
