#!/usr/bin/env bash
# Misuse of coroutine_fn and of the locks must not compile. $1 is a Clang with -Wthread-safety; each case below is a body that
# has to be refused, next to one that has to be accepted.
set -euo pipefail
clang=${1:?usage: coroutine_fn_test.sh CLANG}
command -v "$clang" >/dev/null || { echo "skipped: no $clang"; exit 77; }
cd "$(dirname "$0")/../.."

common='#include "coroutine/co_mutex.h"
#include "coroutine/co_rwlock.h"
#include "coroutine/coroutine.h"
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
compiles() {
  printf '%s%s\n' "$common" "$1" |
    "$clang" -std=gnu++23 -fsyntax-only -I. -Wthread-safety -Wthread-safety-beta -Werror -x c++ - >/dev/null 2>&1
}
fail=0
accept() { compiles "$2" || { echo "refused, but is right: $1"; fail=1; }; }
refuse() { ! compiles "$2" || { echo "accepted, but is wrong: $1"; fail=1; }; }

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
exit $fail
