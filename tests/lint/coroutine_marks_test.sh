#!/usr/bin/env bash
# The tree has no coroutine_fn missing where the compiler would not notice, and the check finds each planted mistake.
set -euo pipefail
command -v python3 >/dev/null || { echo "skipped: no python3"; exit 77; }
here=$(cd "$(dirname "$0")" && pwd)
check=$here/coroutine_marks.py
(cd "$here/../.." && "$check" coroutine block formats cmd tests)

planted=$(mktemp -d)
trap 'rm -rf "$planted"' EXIT
common='struct Driver { virtual ~Driver() = default; virtual int read(int n) coroutine_fn = 0; };
struct Middle : public Driver {};
'
fail=0
# find WORDS SOURCE: the check must complain with these words.
find_mistake() {
  printf '%s%s\n' "$common" "$2" >"$planted/mistake.cc"
  { "$check" "$planted" || true; } | grep -q "$1" || { echo "not found ($1): $2"; fail=1; }
}
# accept SOURCE: the check must not complain.
accept() {
  printf '%s%s\n' "$common" "$1" >"$planted/mistake.cc"
  "$check" "$planted" || { echo "complained about: $1"; fail=1; }
}

accept 'struct Raw : Driver { int read(int n) coroutine_fn override { return n; } };'
find_mistake 'Raw::read() overrides' 'struct Raw : Driver { int read(int n) override { return n; } };'
find_mistake 'Raw::read() overrides' 'class Raw final : public Middle { int size() const { return 1; } int read(int n) override; };'
accept 'struct Other { virtual int read(); }; struct Raw : Other { int read() override; };'
accept 'void f() { Coroutine::create([]() coroutine_fn {})->enter(); }'
find_mistake 'lambda without' 'void f() { Coroutine::create([] {})->enter(); }'
find_mistake 'lambda without' 'void f() { run_in_main_loop([&](int) -> int { return 1; }); }'
find_mistake 'lambda without' 'void f(CoGroup& group) { group.start([] { /* coroutine_fn */ }); }'
accept 'void entry(void*) { Coroutine::assume_in_coroutine(); } void f() { Coroutine::create(entry, nullptr); }'
find_mistake "'entry' without" 'void entry(void*) { work(); } void f() { Coroutine::create(&entry, nullptr); }'
find_mistake "'body' without" 'void f() { auto body = [] {}; Coroutine::create(body, "name"); }'
accept 'void f() coroutine_fn { co_run_on_worker([] { return 1; }); }'
find_mistake 'given to a worker' 'void f() coroutine_fn { co_run_on_worker([]() coroutine_fn { return 1; }); }'
accept 'void f(CoMutex& m) coroutine_fn { if (g()) { const CoMutexGuard guard(m); } }'
find_mistake 'a CoMutexGuard in what' 'void f(CoMutex& m) { if (g()) { const CoMutexGuard guard(m); } }'
find_mistake 'a CoReadGuard in what' 'void f(CoRwlock& l) no_coroutine_fn { for (int i : {1, 2}) { CoReadGuard guard(l); } }'
find_mistake 'a CoWriteGuard in what' 'struct T { void f() coroutine_mixed_fn { CoWriteGuard guard{l}; } CoRwlock l; };'
find_mistake 'a CoMutexGuard in what' 'void f(CoMutex& m) coroutine_fn { on_exit(1, [&] { CoMutexGuard guard(m); }); }'
find_mistake 'a CoMutexGuard in what' 'void f(CoMutex& m) coroutine_fn { on_exit([&](int a[]) -> bool { CoMutexGuard guard(m); }); }'
accept 'void f(CoMutex& m) { auto body = [&, n = a[1]](int) mutable coroutine_fn -> int { CoMutexGuard guard(m); }; }'
accept 'struct T { int f(int) coroutine_fn CO_REQUIRES(a); }; int T::f(int) { do { CoMutexGuard guard(m); } while (x()); }'
find_mistake 'a CoMutexGuard in what' 'struct T { int f(int); int g() coroutine_fn; }; int T::f(int) { CoMutexGuard guard(m); }'
accept 'struct Raw : Middle { int read(int n) coroutine_fn override; }; int Raw::read(int n) { CoReadGuard guard(l); }'
accept 'void f(int n) coroutine_fn; void f(int n) { CoMutexGuard guard(m); }'
accept 'void entry(void*) { Coroutine::assume_in_coroutine(); CoMutexGuard guard(m); }'
find_mistake 'a CoMutexGuard in what' 'TEST(A, B) { f(); CoMutexGuard guard(m); }'
find_mistake 'a CoMutexGuard in what' 'T::T(int a) : a_(a), b_(a) { CoMutexGuard guard(m); }'
exit $fail
