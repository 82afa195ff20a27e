// The copy engine: moves the content of images into a target, in parallel and with bounded memory.
#pragma once

#include <cstdint>
#include <functional>
#include <vector>

#include "block/node.h"
#include "block/util/result.h"
#include "coroutine/annotations.h"

namespace coimg {

/// A part of the sources, in bytes from the start of the first one. Its end may lie beyond theirs.
struct CopyWindow {
  uint64_t offset = 0;
  uint64_t bytes = UINT64_MAX;
};

struct CopyOptions {
  unsigned workers = 8;            ///< requests in flight, 1..16
  bool compress = false;           ///< write compressed clusters
  unsigned compression_level = 0;  ///< see WriteOptions
  bool in_order = true;            ///< place clusters in guest order (false: -W)
  uint64_t sparse_bytes = 4096;    ///< zero runs of at least this in the data become holes; 0: none does
  bool store_zeros = false;        ///< what the source knows to be zeros is written like data; with sparse_bytes 0
  bool target_is_zero = false;     ///< the target reads as zeros now: zero runs need not be written
  bool target_has_backing =
      false;  ///< copy only what the sources' top layers allocate; write zeros where they have zeros
  const BlockNode* above = nullptr;  ///< with target_has_backing and one source: all layers above this one count as top
  bool leave_equal = false;  ///< what the target shows already is not written: by whole clusters, where data are read
  bool salvage = false;      ///< unreadable sectors become zeros
  CopyWindow window = {};    ///< what is copied, to the start of the target
  std::function<void(uint64_t done, uint64_t total)> on_progress = {};  ///< bytes; called on the loop, not too often
  std::function<bool()> should_stop = {};                               ///< asked between requests: end with ECANCELED
  std::function<void(const std::string&)> on_warning = {};
};

/// Copies the concatenation of `sources` (each rounded up to 512 bytes), or the window of it, to the start of `target`,
/// which is long enough.
///
/// Holes and zero clusters are never read. Memory: see transfer_size.h; the same for any image size. Does not flush.
/// Errors: what failed, with the byte position; the target's content is then undefined.
Result<void> co_copy(const std::vector<BlockNode*>& sources, BlockNode& target, const CopyOptions& options)
    coroutine_fn;

}  // namespace coimg
