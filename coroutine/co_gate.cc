#include "coroutine/co_gate.h"

#include "coroutine/coroutine.h"
#include "coroutine/fatal.h"

namespace coimg {

CoGate::~CoGate() {
  if (inside_ != 0) fatal("CoGate destroyed while %u are inside", inside_);
}

bool CoGate::try_enter() {
  if (closed_) return false;
  ++inside_;
  return true;
}

void CoGate::enter() { static_cast<void>(try_enter_until(Deadline::never())); }

bool CoGate::try_enter_until(const Deadline& deadline) {
  while (!try_enter()) {
    if (!waiting_.wait_until(deadline)) return false;
  }
  return true;
}

void CoGate::leave() {
  if (inside_ == 0) fatal("CoGate::leave() called with nobody inside");
  if (--inside_ == 0) left_.restart_all();
}

void CoGate::drain() { static_cast<void>(try_drain_until(Deadline::never())); }

bool CoGate::try_drain_until(const Deadline& deadline) {
  while (closed_) {  // one drains at a time
    if (!waiting_.wait_until(deadline)) return false;
  }
  closed_ = true;
  while (inside_ != 0) {
    if (left_.wait_until(deadline)) continue;
    open();
    return false;
  }
  return true;
}

void CoGate::open() {
  closed_ = false;
  waiting_.restart_all();
}

}  // namespace coimg
