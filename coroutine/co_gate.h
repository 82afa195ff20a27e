// CoGate: keeps count of who is inside, so that one can wait until all have left.
#pragma once

#include "coroutine/annotations.h"
#include "coroutine/co_queue.h"
#include "coroutine/deadline.h"

namespace coimg {

/// Guards the life of something: users hold a CoGateGuard while they use it, and whoever takes it away drains first.
///
/// Belongs to one AioContext. The destructor asserts that nobody is inside.
class CoGate {
 public:
  CoGate() = default;
  ~CoGate();
  CoGate(const CoGate&) = delete;
  CoGate& operator=(const CoGate&) = delete;

  /// Goes in; declines while the gate is closed. Each success needs a leave(): prefer the guard.
  [[nodiscard]] bool try_enter();
  /// Goes in, waiting while the gate is closed.
  void enter() coroutine_fn;
  /// The same until the deadline. Returns whether the caller is inside.
  [[nodiscard]] bool try_enter_until(const Deadline& deadline) coroutine_fn;
  void leave() coroutine_mixed_fn;

  /// Closes the gate and waits until all have left. A coroutine that is inside itself would wait for ever.
  void drain() coroutine_fn;
  /// The same until the deadline. Returns whether all have left; if not, the gate is as open as before.
  [[nodiscard]] bool try_drain_until(const Deadline& deadline) coroutine_fn;
  /// Lets users in again, those first that wait in enter().
  void open() coroutine_mixed_fn;

  [[nodiscard]] bool closed() const { return closed_; }
  [[nodiscard]] unsigned inside() const { return inside_; }

 private:
  unsigned inside_ = 0;
  bool closed_ = false;
  CoQueue left_;
  CoQueue waiting_;
};

/// Is inside a gate for a scope within a coroutine.
class [[nodiscard]] CoGateGuard {
 public:
  explicit CoGateGuard(CoGate& gate) coroutine_fn : gate_(gate) { gate_.enter(); }
  ~CoGateGuard() { gate_.leave(); }
  CoGateGuard(const CoGateGuard&) = delete;
  CoGateGuard& operator=(const CoGateGuard&) = delete;

 private:
  CoGate& gate_;
};

/// Keeps a gate closed for a scope within a coroutine, with nobody inside.
class [[nodiscard]] CoDrainedSection {
 public:
  explicit CoDrainedSection(CoGate& gate) coroutine_fn : gate_(gate) { gate_.drain(); }
  ~CoDrainedSection() { gate_.open(); }
  CoDrainedSection(const CoDrainedSection&) = delete;
  CoDrainedSection& operator=(const CoDrainedSection&) = delete;

 private:
  CoGate& gate_;
};

}  // namespace coimg
