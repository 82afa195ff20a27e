// Comparison: where the guest-visible contents of two images first differ.
#pragma once

#include <cstdint>
#include <functional>
#include <limits>
#include <optional>
#include <span>
#include <string>

#include "block/node.h"
#include "block/transfer_size.h"
#include "block/util/page_buffer.h"
#include "block/util/result.h"
#include "coroutine/annotations.h"
#include "coroutine/co_mutex.h"

namespace coimg {

/// What a comparison came upon first, in guest order.
struct ComparisonFinding {
  enum class Kind {
    kNone,          ///< no difference
    kContent,       ///< the sector at `offset` differs
    kStatus,        ///< strict: the allocation at `offset` differs
    kStatusFailed,  ///< the allocation could not be found out
    kReadFailed,    ///< `offset` is the start of the request
  };
  Kind kind = Kind::kNone;
  uint64_t offset = std::numeric_limits<uint64_t>::max();
  unsigned image = 0;               ///< which one failed: 0 or 1
  std::optional<Error> error = {};  ///< of the failures
};

/// Compares a range of two images. Ranges that read as zeros in both are never read; the rest is read by several
/// coroutines. What is reported is always what comes first on the disk, however the reads overtake each other.
class Comparison {
 public:
  struct Options {
    bool strict = false;                               ///< allocation has to be the same too
    std::function<void(uint64_t offset)> on_progress;  ///< how far it has come
    std::function<bool()> should_stop = {};            ///< asked between requests: what is found does not count then
  };

  /// `second` null stands for an image of zeros. The nodes outlive the object, which serves one run.
  Comparison(BlockNode& first, BlockNode* second, Options options);

  /// Compares [offset, end), which lies inside both images.
  ComparisonFinding run(uint64_t offset, uint64_t end) coroutine_fn;

 private:
  /// A range in which each image is either known to be zero or has to be read.
  struct Chunk {
    uint64_t offset, bytes;
    bool zero[2];
  };
  /// The last answer of an image about its allocation, and where that ends.
  struct StatusCursor {
    BlockNode* node;
    uint64_t end = 0;
    BlockStatus status = {};
  };

  std::optional<Chunk> next_chunk() coroutine_fn;
  std::optional<Chunk> plan_chunk_locked() coroutine_fn CO_REQUIRES(plan_lock_);
  bool look_up_locked(unsigned image) coroutine_fn CO_REQUIRES(plan_lock_);
  void compare_chunks() coroutine_fn;
  void compare_chunk(const Chunk& chunk, std::span<PageBuffer, 2> buffers) coroutine_fn;
  bool read(unsigned image, const Chunk& chunk, const IoVector& memory) coroutine_fn;
  void note_failed_read(unsigned image, const Chunk& chunk, Error error);
  void note(ComparisonFinding finding);

  const Options options_;
  const TransferSize size_;
  ComparisonFinding first_finding_;
  CoMutex plan_lock_;
  uint64_t position_ CO_GUARDED_BY(plan_lock_) = 0;  ///< where planning goes on
  uint64_t end_ = 0;                                 ///< constant during a run
  StatusCursor cursors_[2];                          ///< moved under plan_lock_; the nodes are constant
};

}  // namespace coimg
