#include "coroutine/co_group.h"

#include <cassert>
#include <utility>

#include "coroutine/aio_context.h"
#include "coroutine/coroutine.h"

namespace coimg {

CoGroup::~CoGroup() { assert(running_ == 0 && "a group is destroyed while members run"); }

void CoGroup::start(std::function<void()> body, const char* name) {
  // noexcept: an exception would otherwise unwind into the coroutine switch.
  auto member = [this, body = std::move(body)]() mutable noexcept {
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

void CoGroup::wait_below(unsigned limit) {
  assert(limit > 0 && "fewer than none never happens");
  while (running_ >= limit) ended_.wait();
}

}  // namespace coimg
