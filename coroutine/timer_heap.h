// TimerHeap: the armed timers of one clock, soonest first. A part of AioContext.
#pragma once

#include <cstdint>
#include <vector>

#include "coroutine/aio_context.h"

namespace coimg {

/// A binary heap whose members know their place, so that cancelling one of many takes O(log n).
class TimerHeap {
 public:
  [[nodiscard]] bool empty() const { return heap_.empty() && aside_.empty(); }
  /// The soonest; inside of fire_due() perhaps another one that has passed, too.
  [[nodiscard]] int64_t first_deadline_ns() const { return (aside_.empty() ? heap_ : aside_).front()->deadline_ns_; }

  void insert(Timer* timer);
  void erase(Timer* timer);

  /// Fires the timers that are due at `now_ns` and were armed before the call, so that one that arms itself again does
  /// not keep the loop here. `newest_sequence` is that of the last arming. Returns whether any fired.
  bool fire_due(int64_t now_ns, uint64_t newest_sequence);

 private:
  static bool before(const Timer* a, const Timer* b);
  void put_aside(Timer* timer);
  void put_back();
  void place(size_t index, Timer* timer);
  void sift_up(size_t index, Timer* timer);
  void sift_down(size_t index, Timer* timer);

  std::vector<Timer*> heap_;
  /// What was armed since fire_due() was called, for a time that has passed: the others have their turn first. Their
  /// index has kAside.
  std::vector<Timer*> aside_;
};

}  // namespace coimg
