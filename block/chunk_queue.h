// ChunkQueue: the chunks of a plan, for workers that take them in guest order and do them side by side.
#pragma once

#include <optional>

#include "block/copy_plan.h"
#include "block/placement.h"
#include "coroutine/co_mutex.h"

namespace coimg {

/// Belongs to one AioContext.
class ChunkQueue {
 public:
  /// A chunk, and the turn that belongs to it: tickets are in guest order, whoever takes them.
  struct Item {
    CopyChunk chunk;
    PlacementOrder::Ticket ticket;
  };

  ChunkQueue(SourceSequence& sources, CopyPlan::Settings settings) : plan_(sources, settings) {}

  /// The next chunk, or nothing at the end. Now and then the event loop runs in between: an image of many small runs
  /// would keep it from its signals.
  /// Errors: those of block status, with the offset.
  Result<std::optional<Item>> take() coroutine_fn CO_EXCLUDES(lock_);

 private:
  CoMutex lock_;
  CopyPlan plan_ CO_GUARDED_BY(lock_);
  PlacementOrder order_;
  unsigned taken_ = 0;
};

}  // namespace coimg
