#include "block/placement.h"

#include <cassert>

#include "coroutine/aio_context.h"
#include "coroutine/coroutine.h"

namespace coimg {

PlacementOrder::~PlacementOrder() { assert(waiting_.empty()); }

void PlacementOrder::Ticket::wait_turn() {
  if (!order_) return;  // its turn came and went
  while (order_->turn_ != number_) {
    order_->waiting_.emplace(number_, Coroutine::self());
    Coroutine::yield();
    order_->waiting_.erase(number_);
  }
}

void PlacementOrder::Ticket::end() {
  if (!order_) return;
  order_->finish_number(number_);
  order_ = nullptr;
}

void PlacementOrder::finish_number(uint64_t number) {
  if (number != turn_) {
    finished_early_.insert(number);
    return;
  }
  do {
    ++turn_;
  } while (finished_early_.erase(turn_));
  if (auto next = waiting_.find(turn_); next != waiting_.end()) co_wake(next->second);
}

}  // namespace coimg
