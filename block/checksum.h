// Checksums of what a guest sees: the same for every image that holds the same disk, whatever its format.
#pragma once

#include <cstdint>
#include <functional>

#include "block/node.h"
#include "block/util/hasher.h"
#include "block/util/result.h"
#include "coroutine/annotations.h"

namespace coimg {

struct ChecksumOptions {
  DigestAlgorithm algorithm = DigestAlgorithm::kSha256;
  /// Of all bytes in a row, as sha256sum takes it of a raw image, instead of the tree (tree_digest.h). Its time grows
  /// with the length of the disk, and one processor does the work.
  bool flat = false;
  unsigned workers = 8;
  std::function<void(uint64_t done, uint64_t total)> on_progress = {};  ///< bytes; called on the loop, not too often
  std::function<bool()> should_stop = {};                               ///< asked between requests: end with ECANCELED
};

/// Reads the disk that `node` shows; holes and zero clusters are not read. Memory: as that of a copy, the same for any
/// length. Errors: what could not be read, with the byte position.
Result<Digest> co_checksum(BlockNode& node, const ChecksumOptions& options) coroutine_fn;

}  // namespace coimg
