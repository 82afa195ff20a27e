#!/usr/bin/env bash
# Misuse of coroutine_fn and of the locks must not compile. $1 is a Clang with -Wthread-safety; each case below is a body that
# has to be refused, next to one that has to be accepted.
set -euo pipefail
clang=${1:?usage: coroutine_fn_test.sh CLANG}
command -v "$clang" >/dev/null || { echo "skipped: no $clang"; exit 77; }
cd "$(dirname "$0")/../.."

common='#include "coroutine/big_lock.h"
#include "coroutine/co_gate.h"
#include "coroutine/co_mutex.h"
#include "coroutine/co_queue.h"
#include "coroutine/co_rwlock.h"
#include "coroutine/co_sleep.h"
#include "coroutine/coroutine.h"
#include "coroutine/main_loop.h"
#include "coroutine/worker_pool.h"
using namespace coimg;
void may_yield() coroutine_fn;
void blocks() no_coroutine_fn;
struct Driver { virtual ~Driver() = default; virtual int read() coroutine_fn = 0; };
struct Table {
  CoRwlock lock;
  int entries CO_GUARDED_BY(lock) = 0;
  int look_up_locked() CO_REQUIRES_SHARED(lock) { return entries; }
};
'
# check SOURCE: prints what the compiler says.
check() {
  printf '%s%s\n' "$common" "$1" |
    "$clang" -std=gnu++23 -fsyntax-only -I. -Wthread-safety -Wthread-safety-beta -Werror -x c++ - 2>&1
}
fail=0
accept() { check "$2" >/dev/null || { echo "refused, but is right: $1"; fail=1; }; }
# By the analysis, not for a slip in the case itself.
refuse() { { check "$2" || true; } | grep -q 'Wthread-safety' || { echo "accepted, but is wrong: $1"; fail=1; }; }

accept 'a coroutine_fn calls another' 'void f() coroutine_fn { may_yield(); }'
refuse 'a plain function calls a coroutine_fn' 'void f() { may_yield(); }'
refuse 'a virtual coroutine_fn called from plain code' 'int f(Driver& d) { return d.read(); }'
accept 'a marked lambda' 'void f() { (void)Coroutine::create([]() coroutine_fn { may_yield(); }); }'
refuse 'an unmarked lambda' 'void f() { (void)Coroutine::create([] { may_yield(); }); }'
refuse 'a coroutine calls what blocks' 'void f() coroutine_fn { blocks(); }'
accept 'guarded data under its lock' 'int f(Table& t) { CoReadGuard g(t.lock); return t.entries; }'
refuse 'guarded data without its lock' 'int f(Table& t) { return t.entries; }'
refuse 'guarded data written under the read lock' 'void f(Table& t) { CoReadGuard g(t.lock); t.entries = 1; }'
accept 'guarded data written under the write lock' 'void f(Table& t) { CoWriteGuard g(t.lock); t.entries = 1; }'
refuse 'a _locked function without the lock' 'int f(Table& t) { return t.look_up_locked(); }'
refuse 'guarded data after the guard was unlocked' 'int f(Table& t) { CoReadGuard g(t.lock); g.unlock(); return t.entries; }'
refuse 'yield in plain code' 'void f() { Coroutine::yield(); }'
refuse 'a lock taken in plain code' 'void f(CoMutex& m) { m.lock(); m.unlock(); }'
refuse 'a lock never given back' 'void f(CoMutex& m) coroutine_fn { m.lock(); }'
refuse 'a lock given back twice' 'void f(CoMutex& m) coroutine_fn { m.lock(); m.unlock(); m.unlock(); }'
refuse 'a lock taken twice' 'void f(CoMutex& m) coroutine_fn { m.lock(); m.lock(); m.unlock(); m.unlock(); }'
refuse 'a lock that was only tried for' 'void f(CoMutex& m) coroutine_fn { if (!m.try_lock()) m.unlock(); }'
accept 'a lock tried for until a deadline' 'void f(CoMutex& m) coroutine_fn { if (m.try_lock_until(Deadline::never())) m.unlock(); }'
refuse 'waiting with a lock that is not held' 'void f(CoQueue& q, CoMutex& m) coroutine_fn { q.wait(m); }'
accept 'waiting with a lock that is held' 'void f(CoQueue& q, CoMutex& m) coroutine_fn { CoMutexGuard g(m); q.wait(m); }'
refuse 'waiting in plain code' 'void f(CoQueue& q) { q.wait(); }'
refuse 'an upgrade without the read lock' 'void f(CoRwlock& l) coroutine_fn { l.upgrade(); l.unlock(); }'
refuse 'guarded data written after a downgrade' 'void f(Table& t) coroutine_fn { t.lock.wrlock(); t.lock.downgrade(); t.entries = 1; t.lock.unlock(); }'
refuse 'sleeping in plain code' 'void f() { co_sleep_ns(ClockType::kMonotonic, 1); }'
refuse 'waiting for an fd in plain code' 'void f() { yield_until_fd_readable(0); }'
refuse 'a worker asked for in plain code' 'void f() { co_run_on_worker([] {}); }'
refuse 'a nested loop in a coroutine' 'void f() coroutine_fn { AioContext::current().poll(true); }'
refuse 'run_in_main_loop in a coroutine' 'void f() coroutine_fn { run_in_main_loop([]() coroutine_fn {}); }'
refuse 'the big lock taken in a coroutine' 'void f() coroutine_fn { big_lock.lock(); big_lock.unlock(); }'
refuse 'enter_next in a coroutine' 'void f(CoQueue& q) coroutine_fn { q.enter_next(); }'
refuse 'a drain in plain code' 'void f(CoGate& g) { g.drain(); }'
exit $fail
