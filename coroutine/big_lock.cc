#include "coroutine/big_lock.h"

#include <cstdint>

#include "coroutine/compiler.h"
#include "coroutine/coroutine.h"
#include "coroutine/fatal.h"
#include "coroutine/main_loop_lock.h"
#include "coroutine/thread_mutex.h"

namespace coimg {
namespace {

/// A ticket lock: whoever asks first comes first. Never destroyed, as threads may outlive main().
struct Line {
  ThreadMutex mutex;
  ThreadCondition turn;
  uint64_t next_ticket CO_GUARDED_BY(mutex) = 0;
  uint64_t serving CO_GUARDED_BY(mutex) = 0;
};

Line& line = *new Line;  // before main() starts threads

constinit thread_local bool this_thread_holds = false;

COIMG_THREAD_LOCAL_ACCESSOR bool& thread_holds() { return this_thread_holds; }

void take_turn() {
  const ThreadMutexGuard hold(line.mutex);
  const uint64_t ticket = line.next_ticket++;
  while (line.serving != ticket) line.turn.wait(line.mutex);
  thread_holds() = true;
}

void end_turn() {
  {
    const ThreadMutexGuard hold(line.mutex);
    thread_holds() = false;
    ++line.serving;
  }
  line.turn.notify_all();
}

bool anybody_waits() {
  const ThreadMutexGuard hold(line.mutex);
  return line.next_ticket - line.serving > 1;
}

}  // namespace

BigLock big_lock;

void BigLock::lock() CO_NO_THREAD_SAFETY_ANALYSIS {
  if (const Coroutine* co = Coroutine::self_or_null()) {
    fatal("coroutine '%s' takes the big lock, which blocks its thread", co->name());
  }
  if (held()) fatal("a thread takes the big lock that it already holds");
  take_turn();
}

void BigLock::unlock() CO_NO_THREAD_SAFETY_ANALYSIS {
  assert_locked();
  end_turn();
}

bool BigLock::held() const { return thread_holds(); }

void BigLock::assert_locked() const {
  if (!held()) fatal("a thread needs the big lock and does not hold it");
}

MainLoopLockPause::MainLoopLockPause(bool holds_lock, bool may_sleep)
    : paused_(holds_lock && (may_sleep || anybody_waits())) {
  if (paused_) end_turn();
}

MainLoopLockPause::~MainLoopLockPause() {
  if (paused_) take_turn();
}

}  // namespace coimg
