// A program that stops with coroutines suspended, for backtrace.sh to look at.
#include <csignal>

#include "coroutine/co_mutex.h"
#include "coroutine/co_queue.h"
#include "coroutine/coroutine.h"

namespace coimg {
namespace {

[[gnu::noinline]] void wait_for_dinner(CoQueue& queue) coroutine_fn {
  queue.wait();
  asm volatile("");  // not a tail call
}

[[gnu::noinline]] void wait_for_the_key(CoMutex& mutex) coroutine_fn {
  const CoMutexGuard guard(mutex);
  Coroutine::yield();
}

void stop_with_sleepers() {
  CoQueue queue;
  CoMutex mutex;
  Coroutine::create([&]() coroutine_fn { wait_for_dinner(queue); }, "hungry")->enter();
  Coroutine::create([&]() coroutine_fn { wait_for_the_key(mutex); }, "owner")->enter();
  Coroutine::create([&]() coroutine_fn { wait_for_the_key(mutex); }, "locked out")->enter();
  Coroutine::create([]() coroutine_fn { std::raise(SIGTRAP); }, "running")->enter();
}

}  // namespace
}  // namespace coimg

int main() { coimg::stop_with_sleepers(); }
