// Bottom halves: scheduled from anywhere, run by the loop.
//
// A state is on at most one of two lists: `incoming`, to which any thread pushes, and the loop's own `ready` list.
// kPending says that it is on one; whoever sets that flag pushes, and the loop clears it after taking the state off. So
// a schedule() that finds it set has nothing to push, and the loop, which reads the other flags in the same
// instruction, cannot miss it.
#include <memory>
#include <utility>

#include "coroutine/aio_context_impl.h"

namespace coimg {

using State = BottomHalf::State;

void State::enqueue(unsigned new_flags) {
  AioContext::Impl* const impl = context;
  if (impl == nullptr) return;
  const AioContext::Impl::CallerScope keep_alive(impl);
  const unsigned old = flags.fetch_or(new_flags | kPending);
  if ((old & kPending) == 0) impl->incoming.push(this);
  if ((new_flags & kIdle) == 0) {
    impl->notify();
  } else {
    impl->notify_if_sleeping();  // which may be for longer than this can wait
  }
}

BottomHalf::~BottomHalf() {
  if (state_->context == nullptr) {
    delete state_;
    return;
  }
  state_->context->unlink_live(state_);
  state_->enqueue(State::kDeleted);
}

void BottomHalf::schedule() {
  // One that was to run without hurry now has to.
  state_->flags.fetch_and(~unsigned{State::kIdle});
  state_->enqueue(State::kScheduled);
}

void BottomHalf::schedule_idle() {
  if ((state_->flags.load() & State::kScheduled) != 0) return;  // it runs at least as soon already
  state_->enqueue(State::kScheduled | State::kIdle);
}

void BottomHalf::cancel() { state_->flags.fetch_and(~unsigned{State::kScheduled | State::kIdle}); }

State* AioContext::Impl::new_state(BottomHalf::Callback callback, const char* name) {
  return new State{this, std::move(callback), name};
}

void AioContext::Impl::link_live(State* state) {
  state->next_live = live;
  if (live != nullptr) live->previous_live = state;
  live = state;
}

void AioContext::Impl::unlink_live(State* state) {
  (state->previous_live != nullptr ? state->previous_live->next_live : live) = state->next_live;
  if (state->next_live != nullptr) state->next_live->previous_live = state->previous_live;
}

void AioContext::Impl::collect_bottom_halves() {
  if (incoming.empty()) return;
  incoming.take_all([this](State* state) {
    state->next.store(nullptr, std::memory_order_relaxed);
    if (ready_tail != nullptr) {
      ready_tail->next.store(state, std::memory_order_relaxed);
    } else {
      ready_head = state;
    }
    ready_tail = state;
  });
}

bool AioContext::Impl::run_bottom_halves() {
  // In this order: a notify() that comes after the list was taken must stay visible.
  if (notified.load(std::memory_order_relaxed)) notified.exchange(false);
  collect_bottom_halves();

  // What callbacks schedule goes to `incoming` and waits for the next iteration. A nested loop takes over what is left
  // here: it may be waiting for exactly that.
  bool progress = false;
  while (ready_head != nullptr) {
    State* state = ready_head;
    ready_head = state->next.load(std::memory_order_relaxed);
    if (ready_head == nullptr) ready_tail = nullptr;
    progress |= run_bottom_half(state);
  }
  return progress;
}

bool AioContext::Impl::run_bottom_half(State* state) {
  const unsigned flags = state->flags.fetch_and(~unsigned{State::kPending | State::kScheduled | State::kIdle});
  const bool deleted = (flags & State::kDeleted) != 0;
  const bool run = (flags & State::kScheduled) != 0 && !deleted;
  if (run) {
    trace("bottom_half", "name", state->name, state);
    ++state->running;
    state->callback();
    --state->running;
  }
  if (deleted || (flags & State::kOneshot) != 0) state->free_when_done = true;
  // A nested loop can find it deleted while the callback that ran that loop is not back.
  if (state->free_when_done && state->running == 0) delete state;
  return run && (flags & State::kIdle) == 0;
}

std::unique_ptr<BottomHalf> AioContext::new_bottom_half(BottomHalf::Callback callback, const char* name) {
  State* state = impl_->new_state(std::move(callback), name);
  impl_->link_live(state);
  return std::unique_ptr<BottomHalf>(new BottomHalf(state));
}

void AioContext::schedule_oneshot(BottomHalf::Callback callback, const char* name) {
  impl_->new_state(std::move(callback), name)->enqueue(State::kOneshot | State::kScheduled);
}

}  // namespace coimg
