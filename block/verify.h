// Verifying a copy: the target is read back and compared with what it was made of.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <vector>

#include "block/node.h"
#include "block/util/result.h"
#include "coroutine/annotations.h"

namespace coimg {

struct VerifyOptions {
  unsigned workers = 8;
  std::function<void(uint64_t done, uint64_t total)> on_progress = {};  ///< bytes; called on the loop, not too often
  std::function<bool()> should_stop = {};                               ///< asked between requests: end with ECANCELED
};

/// Compares what a guest sees in `target` with the concatenation of `sources`, which is not longer. Returns the offset
/// of the first byte that differs; nothing when none does.
///
/// Both are read again, and compared byte by byte: no digest of the sources has to be kept, which would grow with the
/// disk, and the place is exact. Where both are known to be zeros nothing is read. Memory: as that of a copy. Errors:
/// what could not be read, with the byte position.
Result<std::optional<uint64_t>> co_verify(const std::vector<BlockNode*>& sources, BlockNode& target,
                                          const VerifyOptions& options) coroutine_fn;

}  // namespace coimg
