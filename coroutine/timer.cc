// Clocks, timers and the heap that orders them.
#include <ctime>
#include <limits>
#include <utility>

#include "coroutine/aio_context_impl.h"
#include "coroutine/timer_heap.h"

namespace coimg {
namespace {

int64_t system_clock_ns(clockid_t clock) {
  timespec now;
  ::clock_gettime(clock, &now);
  return int64_t{now.tv_sec} * 1'000'000'000 + now.tv_nsec;
}

/// Marks a timer's index as one in TimerHeap::aside_.
constexpr size_t kAside = size_t{1} << (sizeof(size_t) * 8 - 1);

const char* clock_name(ClockType clock) {
  switch (clock) {
    case ClockType::kRealtime:
      return "realtime";
    case ClockType::kMonotonic:
      return "monotonic";
    case ClockType::kVirtual:
      break;
  }
  return "virtual";
}

}  // namespace

int64_t clock_now_ns(ClockType clock) {
  switch (clock) {
    case ClockType::kRealtime:
      return system_clock_ns(CLOCK_REALTIME);
    case ClockType::kMonotonic:
      return system_clock_ns(CLOCK_MONOTONIC);
    case ClockType::kVirtual:
      break;
  }
  return AioContext::current().impl().virtual_now_ns;
}

Timer::Timer(AioContext& context, ClockType clock, std::function<void()> callback)
    : context_(context), clock_(clock), callback_(std::move(callback)) {}

Timer::~Timer() { cancel(); }

void Timer::arm_at(int64_t deadline_ns) {
  cancel();
  AioContext::Impl& impl = context_.impl();
  deadline_ns_ = deadline_ns;
  sequence_ = ++impl.timer_sequence;
  armed_ = true;
  impl.timers(clock_).insert(this);
  impl.notify_if_sleeping();
}

void Timer::arm_after(int64_t ns) {
  const int64_t now = context_.impl().now_ns(clock_);
  arm_at(ns > std::numeric_limits<int64_t>::max() - now ? std::numeric_limits<int64_t>::max() : now + ns);
}

void Timer::cancel() {
  if (!armed_) return;
  armed_ = false;
  context_.impl().timers(clock_).erase(this);
}

void Timer::fire() {
  // The callback may delete this object, or run a nested loop that fires it again; so it runs from a copy.
  trace("timer", "clock", clock_name(clock_), this);
  const std::function<void()> callback = callback_;
  callback();
}

bool TimerHeap::before(const Timer* a, const Timer* b) {
  return a->deadline_ns_ != b->deadline_ns_ ? a->deadline_ns_ < b->deadline_ns_ : a->sequence_ < b->sequence_;
}

void TimerHeap::place(size_t index, Timer* timer) {
  heap_[index] = timer;
  timer->heap_index_ = index;
}

void TimerHeap::sift_up(size_t index, Timer* timer) {
  while (index > 0) {
    const size_t parent = (index - 1) / 2;
    if (!before(timer, heap_[parent])) break;
    place(index, heap_[parent]);
    index = parent;
  }
  place(index, timer);
}

void TimerHeap::sift_down(size_t index, Timer* timer) {
  for (;;) {
    size_t child = 2 * index + 1;
    if (child >= heap_.size()) break;
    if (child + 1 < heap_.size() && before(heap_[child + 1], heap_[child])) ++child;
    if (!before(heap_[child], timer)) break;
    place(index, heap_[child]);
    index = child;
  }
  place(index, timer);
}

void TimerHeap::insert(Timer* timer) {
  heap_.push_back(timer);
  sift_up(heap_.size() - 1, timer);
}

void TimerHeap::erase(Timer* timer) {
  if ((timer->heap_index_ & kAside) != 0) {
    Timer* const last = aside_.back();
    last->heap_index_ = timer->heap_index_;
    aside_[timer->heap_index_ & ~kAside] = last;
    aside_.pop_back();
    return;
  }
  const size_t hole = timer->heap_index_;
  Timer* last = heap_.back();
  heap_.pop_back();
  if (last == timer) return;
  if (hole > 0 && before(last, heap_[(hole - 1) / 2])) {
    sift_up(hole, last);
  } else {
    sift_down(hole, last);
  }
}

void TimerHeap::put_aside(Timer* timer) {
  erase(timer);
  timer->heap_index_ = kAside | aside_.size();
  aside_.push_back(timer);
}

void TimerHeap::put_back() {
  for (Timer* const timer : aside_) insert(timer);
  aside_.clear();
}

bool TimerHeap::fire_due(int64_t now_ns, uint64_t newest_sequence) {
  bool fired = false;
  put_back();  // of a pass that this one is nested in
  while (!heap_.empty() && heap_.front()->deadline_ns_ <= now_ns) {
    Timer* const timer = heap_.front();
    if (timer->sequence_ > newest_sequence) {
      put_aside(timer);
      continue;
    }
    timer->cancel();
    timer->fire();
    fired = true;
  }
  put_back();
  return fired;
}

}  // namespace coimg
