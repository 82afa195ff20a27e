// CoGroup and CoTryGroup: coroutines that start and end together.
#pragma once

#include <functional>
#include <utility>

#include "coroutine/annotations.h"
#include "coroutine/co_queue.h"
#include "coroutine/deadline.h"

namespace coimg {

/// Starts coroutines and waits for all of them. Belongs to one AioContext; the destructor asserts that all have ended.
///
/// stop() asks the members to end early: they look at should_stop(), and those that pause in pause_until() wake up.
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
  /// The same until the deadline. Return whether it has come to that; the members go on in any case.
  [[nodiscard]] bool wait_all_until(const Deadline& deadline) coroutine_fn { return wait_below_until(1, deadline); }
  [[nodiscard]] bool wait_below_until(unsigned limit, const Deadline& deadline) coroutine_fn;

  /// Asks the members to stop.
  void stop() coroutine_mixed_fn;
  [[nodiscard]] bool should_stop() const { return stopping_; }
  /// For members: sleeps until the deadline, or until the group has to stop. Returns should_stop().
  bool pause_until(const Deadline& deadline) coroutine_fn;

  [[nodiscard]] unsigned running() const { return running_; }

 private:
  template <typename Outcome>
  friend class CoTryGroup;

  unsigned running_ = 0;
  bool stopping_ = false;
  CoQueue ended_;
  CoQueue pausing_;
};

/// A CoGroup whose members may fail: the first error wins, and the rest are asked to stop.
///
/// `Outcome` is what a member returns: std::expected<void, E> or any type like it, whose default value means success.
template <typename Outcome>
class CoTryGroup {
 public:
  /// Starts `body`, a coroutine_fn that returns an Outcome.
  void start(std::function<Outcome()> body, const char* name = "group member") coroutine_mixed_fn {
    group_.start([this, body = std::move(body)]() coroutine_fn { note(body()); }, name);
  }

  /// Waits until all members have ended, and returns the first error.
  [[nodiscard]] Outcome wait_all() coroutine_fn {
    group_.wait_all();
    return std::move(first_);
  }
  /// Waits until all members have ended, or until the deadline. Returns whether they have: then wait_all() has the
  /// first error at once.
  [[nodiscard]] bool wait_all_until(const Deadline& deadline) coroutine_fn { return group_.wait_all_until(deadline); }
  /// Waits until fewer than `limit` members are running, or one has failed. Returns false for the latter.
  [[nodiscard]] bool wait_below(unsigned limit) coroutine_fn {
    while (first_.has_value() && group_.running_ >= limit) group_.ended_.wait();
    return first_.has_value();
  }

  void stop() coroutine_mixed_fn { group_.stop(); }
  [[nodiscard]] bool should_stop() const { return group_.should_stop(); }
  bool pause_until(const Deadline& deadline) coroutine_fn { return group_.pause_until(deadline); }
  [[nodiscard]] unsigned running() const { return group_.running(); }

 private:
  void note(Outcome outcome) {
    if (outcome.has_value() || !first_.has_value()) return;
    first_ = std::move(outcome);
    group_.stop();
  }

  Outcome first_;
  CoGroup group_;
};

}  // namespace coimg
