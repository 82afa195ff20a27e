// What an AioContext is made of. Internal to the runtime.
#pragma once

#include <atomic>
#include <functional>
#include <memory>
#include <random>

#include "coroutine/aio_context.h"
#include "coroutine/coroutine_private.h"
#include "coroutine/fd_handlers.h"
#include "coroutine/io_engine.h"
#include "coroutine/push_list.h"
#include "coroutine/timer_heap.h"

namespace coimg {

/// A bottom half. The handle (BottomHalf) and the lists of the context share it; it is freed when the context takes it
/// off its list after the handle has gone.
struct BottomHalf::State {
  enum Flags : unsigned {
    kPending = 1,    ///< it is on a list of the context
    kScheduled = 2,  ///< the callback is to run
    kIdle = 4,       ///< ...without hurry
    kDeleted = 8,    ///< the handle has gone
    kOneshot = 16,   ///< there is no handle
  };

  /// Sets `flags` and puts it on the context's list. Thread-safe, signal-safe.
  void enqueue(unsigned new_flags);

  AioContext::Impl* context;  ///< null when the context has gone before the handle
  Callback callback;
  const char* name;  ///< for debuggers
  std::atomic<unsigned> flags{0};
  std::atomic<State*> next{nullptr};
  unsigned running = 0;  ///< calls of the callback under way; more than one with nested loops
  bool free_when_done = false;
  State* previous_live = nullptr;  ///< among those with handles
  State* next_live = nullptr;
};

struct AioContext::Impl {
  enum Sleep : uint32_t { kAwake, kForEvents, kForNotify };

  explicit Impl(AioContext& owner_context);
  ~Impl();
  Impl(const Impl&) = delete;
  Impl& operator=(const Impl&) = delete;

  // ---- one iteration, see poll() ----

  /// How long the loop may sleep: 0 when something is due, -1 for ever. Takes the new bottom halves in.
  int64_t sleep_ns();
  /// Spins for events for a while when that has lately paid. Returns whether the sleep is needed no more.
  bool busy_poll(FdHandlers::Ready& ready, Sleep how, int64_t sleep_ns);
  void wait_for_events(FdHandlers::Ready& ready, bool blocking);
  /// Waits for events and notify(), or with kForNotify only for that.
  void sleep(FdHandlers::Ready& ready, Sleep how, int64_t ns);
  bool run_timers();
  bool run_bottom_halves();

  // ---- bottom halves ----

  BottomHalf::State* new_state(BottomHalf::Callback callback, const char* name);
  void link_live(BottomHalf::State* state);
  void unlink_live(BottomHalf::State* state);
  void collect_bottom_halves();
  bool run_bottom_half(BottomHalf::State* state);

  /// Appends a coroutine that its caller has claimed (Private::claim_for_schedule). Thread-safe.
  void push_scheduled(Coroutine::Private* co);
  void enter_scheduled();

  void notify();
  /// Makes a loop that sleeps look again at what it waits for and for how long. Thread-safe and signal-safe.
  void notify_if_sleeping();

  // ---- time ----

  TimerHeap& timers(ClockType clock) { return timer_heaps[static_cast<size_t>(clock)]; }
  [[nodiscard]] int64_t now_ns(ClockType clock) const;

  AioContext& owner;

  /// Keeps the context alive while another thread schedules something in it: that may be the very thing that ends the
  /// loop, before the scheduling function has returned.
  class CallerScope {
   public:
    explicit CallerScope(Impl* impl) : impl_(impl) { impl_->callers.fetch_add(1); }
    ~CallerScope() { impl_->callers.fetch_sub(1); }
    CallerScope(const CallerScope&) = delete;
    CallerScope& operator=(const CallerScope&) = delete;

   private:
    Impl* impl_;
  };

  // Atomic, for all threads and signal handlers.
  std::atomic<unsigned> callers{0};        ///< threads inside a scheduling function, see CallerScope
  PushList<BottomHalf::State> incoming;    ///< bottom halves with kPending that the loop has not seen
  PushList<Coroutine::Private> scheduled;  ///< coroutines to enter
  std::atomic<uint32_t> sleeping{kAwake};  ///< how the loop sleeps or is about to: what notify() has to do
  std::atomic<uint32_t> notified{0};       ///< 1: notify() was called since the loop last looked
  EventNotifier wakeup;

  // For the context's thread.
  BottomHalf::State* ready_head = nullptr;  ///< bottom halves to run in this iteration, in order
  BottomHalf::State* ready_tail = nullptr;
  BottomHalf::State* live = nullptr;         ///< all that have handles
  CoroutineList runnable;                    ///< what enter_scheduled() has taken from `scheduled`
  std::unique_ptr<std::mt19937_64> shuffle;  ///< for tests: what draws the next of them
  std::unique_ptr<BottomHalf> enter_bottom_half;
  BottomHalf::State* enter_state = nullptr;  ///< of enter_bottom_half; read by other threads, never changes
  FdHandlers fd_handlers;
  TimerHeap timer_heaps[3];
  uint64_t timer_sequence = 0;
  int64_t virtual_now_ns = 0;
  std::function<void()> submit_hook;
  std::unique_ptr<IoEngine> engine;
  bool holds_big_lock = false;  ///< this is the main loop's
  // Atomic, as the loop uses them while others may hold the big lock.
  std::atomic<int64_t> max_poll_ns{0};
  std::atomic<int64_t> poll_ns{0};  ///< the present length of busy polling
};

}  // namespace coimg
