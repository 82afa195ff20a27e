// RequestTracker: which byte ranges are in flight, and who has to wait for whom.
#pragma once

#include <cstdint>

#include "coroutine/annotations.h"
#include "coroutine/co_queue.h"

namespace coimg {

class RequestTracker;

/// How an in-flight range treats others: shared ones overlap freely with shared ones, an exclusive one with nobody.
enum class RangeMode { kShared, kExclusive };

/// A range registered for as long as the object lives. Taking it sleeps until no conflicting range is in flight; those
/// that came earlier go first.
class [[nodiscard]] TrackedRequest {
 public:
  /// Must be made inside a coroutine (asserted).
  TrackedRequest(RequestTracker& tracker, uint64_t offset, uint64_t bytes, RangeMode mode);
  ~TrackedRequest();
  TrackedRequest(const TrackedRequest&) = delete;
  TrackedRequest& operator=(const TrackedRequest&) = delete;

  /// Gives the range up before the scope ends.
  void release() coroutine_mixed_fn;

 private:
  friend class RequestTracker;
  [[nodiscard]] bool conflicts_with(const TrackedRequest& other) const;
  void wait_for_conflicts() coroutine_fn;

  RequestTracker* tracker_;
  uint64_t offset_, end_;
  RangeMode mode_;
  TrackedRequest* previous_ = nullptr;  ///< list in order of arrival
  TrackedRequest* next_ = nullptr;
  CoQueue waiters_;
};

/// The ranges of one node or driver. The destructor asserts that none is in flight.
class RequestTracker {
 public:
  RequestTracker() = default;
  ~RequestTracker();
  RequestTracker(const RequestTracker&) = delete;
  RequestTracker& operator=(const RequestTracker&) = delete;

  [[nodiscard]] bool empty() const { return head_ == nullptr; }
  /// Sleeps until nothing is in flight.
  void drain() coroutine_fn;

 private:
  friend class TrackedRequest;
  TrackedRequest* head_ = nullptr;
  TrackedRequest* tail_ = nullptr;
  unsigned exclusive_count_ = 0;  ///< in the list, waiting or not
  CoQueue drained_;
};

}  // namespace coimg
