// CoGroup: coroutines that start and end together.
#pragma once

#include <functional>

#include "coroutine/annotations.h"
#include "coroutine/co_queue.h"

namespace coimg {

/// Starts coroutines and waits for all of them. Belongs to one AioContext; the destructor asserts that all have ended.
///
/// A member that fails notes its error where the owner finds it and calls stop(); should_stop() tells the rest to end
/// early.
class CoGroup {
 public:
  CoGroup() = default;
  ~CoGroup();
  CoGroup(const CoGroup&) = delete;
  CoGroup& operator=(const CoGroup&) = delete;

  /// Starts `body` (a coroutine_fn) as a coroutine of this group. It first runs when the caller yields.
  void start(std::function<void()> body, const char* name = "group member") coroutine_mixed_fn;

  /// Waits until all members have ended.
  void wait_all() coroutine_fn;
  /// Waits until fewer than `limit` members are running.
  void wait_below(unsigned limit) coroutine_fn;

  /// Asks the members to stop.
  void stop() { stopping_ = true; }
  [[nodiscard]] bool should_stop() const { return stopping_; }
  [[nodiscard]] unsigned running() const { return running_; }

 private:
  unsigned running_ = 0;
  bool stopping_ = false;
  CoQueue ended_;
};

}  // namespace coimg
