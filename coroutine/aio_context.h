// AioContext: a thread's event loop, with bottom halves, timers, fd handlers and the thread's I/O engine.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>

#include "coroutine/annotations.h"

namespace coimg {

class AioContext;
class Coroutine;
class IoEngine;

/// kRealtime is wall-clock time, kMonotonic never jumps, kVirtual advances only by AioContext::advance_virtual_clock
/// (tests).
enum class ClockType { kRealtime, kMonotonic, kVirtual };

/// The current time of a clock in nanoseconds; kVirtual is the one of the calling thread's context.
int64_t clock_now_ns(ClockType clock);

/// A callback that its context's loop calls once after each schedule().
///
/// schedule() may be called from any thread and from signal handlers: it is wait-free and allocates nothing.
/// Scheduling one that is already pending does nothing more. Destruction (in the context's thread, also from within
/// the callback) cancels it.
class BottomHalf {
 public:
  using Callback = std::function<void()>;

  ~BottomHalf();
  BottomHalf(const BottomHalf&) = delete;
  BottomHalf& operator=(const BottomHalf&) = delete;

  void schedule();
  /// Like schedule(), but does not keep the loop from sleeping: it runs within 10 ms or with the next other event.
  void schedule_idle();
  void cancel();

  struct State;

 private:
  friend class AioContext;
  explicit BottomHalf(State* state) : state_(state) {}
  State* state_;
};

/// Calls back once when its clock reaches a deadline. Belongs to its context's thread. The callback may arm or delete
/// it.
class Timer {
 public:
  Timer(AioContext& context, ClockType clock, std::function<void()> callback);
  ~Timer();
  Timer(const Timer&) = delete;
  Timer& operator=(const Timer&) = delete;

  /// Sets the deadline, in nanoseconds of the clock; replaces an earlier one.
  void arm_at(int64_t deadline_ns);
  void arm_after(int64_t ns);
  void cancel();
  [[nodiscard]] bool armed() const { return armed_; }

 private:
  friend class AioContext;
  friend class TimerHeap;
  void fire();
  AioContext& context_;
  ClockType clock_;
  std::function<void()> callback_;
  int64_t deadline_ns_ = 0;
  uint64_t sequence_ = 0;  ///< ties are called in the order of arming
  size_t heap_index_ = 0;  ///< where its context's heap has it, while armed
  bool armed_ = false;
};

/// A wake-up that crosses threads: an eventfd. set() is thread-safe and signal-safe.
class EventNotifier {
 public:
  EventNotifier();
  ~EventNotifier();
  EventNotifier(const EventNotifier&) = delete;
  EventNotifier& operator=(const EventNotifier&) = delete;
  void set();
  /// Clears it; returns whether it was set.
  bool test_and_clear();
  [[nodiscard]] int fd() const { return fd_; }

 private:
  int fd_;
};

/// The event loop of one thread. All members are for that thread unless marked thread-safe.
class AioContext {
 public:
  AioContext();
  ~AioContext();
  AioContext(const AioContext&) = delete;
  AioContext& operator=(const AioContext&) = delete;

  /// The calling thread's context; made on first use.
  static AioContext& current();

  /// Runs what is due: bottom halves, timers, fd handlers, finished I/O. With `blocking` waits for the first event.
  /// Returns whether anything ran. May be called from within a handler (nested).
  bool poll(bool blocking) no_coroutine_fn;

  /// Wakes the loop from a blocking poll(). Thread-safe and signal-safe.
  void notify();

  [[nodiscard]] std::unique_ptr<BottomHalf> new_bottom_half(BottomHalf::Callback callback, const char* name = "bh");
  /// Runs `callback` once in this context. Thread-safe; allocates.
  void schedule_oneshot(BottomHalf::Callback callback, const char* name = "oneshot");

  /// Level-triggered handlers; empty functions remove them. A handler may change handlers, its own too, and must cope
  /// with being called when another one has already consumed what it was called for. Remove them before closing `fd`.
  /// An fd that cannot be waited for (a regular file) counts as always ready.
  void set_fd_handler(int fd, std::function<void()> on_readable, std::function<void()> on_writable);

  /// Enters `co` in this context, by its loop. Thread-safe. Aborts, naming both sides, when it is already scheduled.
  void co_schedule(Coroutine* co);

  /// Moves the calling coroutine to `target`; it continues on that thread.
  static void reschedule_self(AioContext& target) coroutine_fn;

  /// Sets what poll() calls first in each iteration, before it may sleep: an I/O engine hands the kernel there what was
  /// queued since. One a context; an empty function removes it.
  void set_submit_hook(std::function<void()> hook);

  /// Adaptive busy polling: how long poll() may spin before it sleeps, 0 (the default) to sleep at once. It spins only
  /// as long as that has lately paid.
  void set_max_poll_ns(int64_t ns);

  void advance_virtual_clock(int64_t ns);

  /// For tests: enters woken coroutines in an order drawn from `seed`, instead of that of waking; 0 ends that. A
  /// program that depends on more than the runtime promises breaks then, and breaks again with the same seed.
  void shuffle_wake_ups(uint64_t seed);

  /// The engine for co_preadv() and its kin in this thread; made on first use, see io.h.
  IoEngine& io_engine();

  struct Impl;
  Impl& impl() { return *impl_; }

 private:
  friend class Timer;
  friend class BottomHalf;
  std::unique_ptr<Impl> impl_;
};

/// Makes a sleeping coroutine run: schedules it in its own context. Thread-safe. From a coroutine of the same context
/// it runs when that one yields or ends; it is never run before co_wake() returns.
void co_wake(Coroutine* co) coroutine_mixed_fn;

}  // namespace coimg
