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

void CoGate::enter() {
  while (!try_enter()) waiting_.wait();
}

void CoGate::leave() {
  if (inside_ == 0) fatal("CoGate::leave() called with nobody inside");
  if (--inside_ == 0) left_.restart_all();
}

void CoGate::drain() {
  while (closed_) waiting_.wait();  // one drains at a time
  closed_ = true;
  while (inside_ != 0) left_.wait();
}

void CoGate::open() {
  closed_ = false;
  waiting_.restart_all();
}

}  // namespace coimg
