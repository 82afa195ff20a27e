#include "coroutine/co_group.h"

#include <cassert>
#include <utility>

#include "coroutine/aio_context.h"
#include "coroutine/coroutine.h"
#include "coroutine/fatal.h"

namespace coimg {

CoGroup::~CoGroup() {
  if (running_ != 0) fatal("CoGroup destroyed while %u of its members run", running_);
}

void CoGroup::start(std::function<void()> body, const char* name) {
  // noexcept: an exception would otherwise unwind into the coroutine switch.
  auto member = [this, body = std::move(body)]() coroutine_fn mutable noexcept {
    body();
    body = nullptr;  // what it captured may not outlive wait_all()
    --running_;
    ended_.restart_all();
  };
  Coroutine* const co = Coroutine::create(std::move(member), name);
  ++running_;
  AioContext::current().co_schedule(co);
}

void CoGroup::wait_all() { wait_below(1); }

void CoGroup::wait_below(unsigned limit) { static_cast<void>(wait_below_until(limit, Deadline::never())); }

bool CoGroup::wait_below_until(unsigned limit, const Deadline& deadline) {
  assert(limit > 0 && "fewer than none never happens");
  while (running_ >= limit) {
    if (!ended_.wait_until(deadline)) return false;
  }
  return true;
}

void CoGroup::stop() {
  stopping_ = true;
  pausing_.restart_all();
}

bool CoGroup::pause_until(const Deadline& deadline) {
  if (!stopping_) static_cast<void>(pausing_.wait_until(deadline));
  return stopping_;
}

}  // namespace coimg
