#include "block/request_tracker.h"

#include <cassert>

#include "coroutine/coroutine.h"

namespace coimg {

TrackedRequest::TrackedRequest(RequestTracker& tracker, uint64_t offset, uint64_t bytes, RangeMode mode)
    : tracker_(&tracker), offset_(offset), end_(offset + bytes), mode_(mode), previous_(tracker.tail_) {
  Coroutine::assume_in_coroutine();
  assert(end_ >= offset_);
  (previous_ ? previous_->next_ : tracker.head_) = this;
  tracker.tail_ = this;
  if (mode_ == RangeMode::kExclusive) ++tracker.exclusive_count_;
  // Shared ranges only ever conflict with exclusive ones, which are rare: then there is nothing to look through.
  if (tracker.exclusive_count_ != 0) wait_for_conflicts();
}

TrackedRequest::~TrackedRequest() { release(); }

void TrackedRequest::release() {
  if (!tracker_) return;
  (previous_ ? previous_->next_ : tracker_->head_) = next_;
  (next_ ? next_->previous_ : tracker_->tail_) = previous_;
  if (mode_ == RangeMode::kExclusive) --tracker_->exclusive_count_;
  if (tracker_->empty()) tracker_->drained_.restart_all();
  tracker_ = nullptr;
  waiters_.restart_all();
}

bool TrackedRequest::conflicts_with(const TrackedRequest& other) const {
  if (mode_ == RangeMode::kShared && other.mode_ == RangeMode::kShared) return false;
  return offset_ < other.end_ && other.offset_ < end_;
}

void TrackedRequest::wait_for_conflicts() {
  // Only earlier ones count, also those that still wait themselves: nobody is overtaken, and there can be no cycle.
  // After each sleep the list may have changed, so the search starts over.
  for (TrackedRequest* earlier = previous_; earlier;) {
    if (conflicts_with(*earlier)) {
      earlier->waiters_.wait();
      earlier = previous_;
    } else {
      earlier = earlier->previous_;
    }
  }
}

RequestTracker::~RequestTracker() { assert(empty()); }

void RequestTracker::drain() {
  while (!empty()) drained_.wait();
}

}  // namespace coimg
