#include "block/chunk_queue.h"

#include <string>
#include <utility>

#include "coroutine/co_sleep.h"

namespace coimg {
namespace {

// After so many chunks the event loop runs.
constexpr unsigned kChunksPerTurn = 64;

}  // namespace

Result<std::optional<ChunkQueue::Item>> ChunkQueue::take() {
  if (++taken_ % kChunksPerTurn == 0) co_sleep_ns(ClockType::kMonotonic, 0);
  CoMutexGuard guard(lock_);
  auto chunk = plan_.next();
  if (!chunk.ok()) {
    return std::move(chunk).error().with_context("error while reading block status at offset " +
                                                 std::to_string(plan_.position()));
  }
  if (!*chunk) return std::optional<Item>();
  return std::optional<Item>(Item{std::move(**chunk), PlacementOrder::Ticket(order_)});
}

}  // namespace coimg
