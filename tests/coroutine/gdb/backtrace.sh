#!/usr/bin/env bash
# gdb shows where each suspended coroutine waits. usage: backtrace.sh PROGRAM (sleepers.cc)
set -euo pipefail
program=${1:?usage: backtrace.sh PROGRAM}
command -v gdb >/dev/null || { echo "skipped: no gdb"; exit 77; }
script=$(cd "$(dirname "$0")/../../.." && pwd)/coroutine/gdb/coimg-gdb.py
gdb -batch -nx -ex 'python print("python works")' 2>&1 | grep -q 'python works' || { echo "skipped: a gdb without Python"; exit 77; }

output=$(timeout -s KILL 60 gdb -batch -nx -iex 'set debuginfod enabled off' -ex "source $script" -ex run -ex bt \
  -ex 'coimg coroutines' -ex 'coimg coroutine owner' "$program" 2>&1 </dev/null) || true
grep -q 'SIGTRAP' <<<"$output" || { echo "skipped: gdb cannot run a program here"; echo "$output"; exit 77; }

fail=0
# expect WORDS BEFORE PATTERN: the trace of the coroutine with this headline has to match.
expect() {
  awk -v head="$1" 'index($0, "coroutine ") == 1 {on = index($0, head) > 0} on' <<<"$output" | grep -qE "$2" ||
    { echo "no match for '$2' under \"$1\""; fail=1; }
}
expect "coroutine 'hungry'" 'wait_for_dinner.*sleepers\.cc:[0-9]+'
expect "coroutine 'hungry'" 'coimg::CoQueue::'
expect "coroutine 'hungry'" 'coroutine_main'
expect "coroutine 'owner'" 'wait_for_the_key.*inlined.*yield'
expect "coroutine 'locked out'" 'wait_for_the_key'
expect "coroutine 'locked out'" 'CoMutex::lock_slow'
expect "coroutine 'running'" 'see the threads'
grep -q '^4 coroutines$' <<<"$output" || { echo "not all four were found"; fail=1; }
grep -qE '^#[0-9]+ .*coroutine_main' <<<"$output" || { echo "gdb's own bt does not reach the coroutine's first frame"; fail=1; }
[ "$(grep -c "^coroutine 'owner'" <<<"$output")" -eq 2 ] || { echo "'coimg coroutine owner' did not show it"; fail=1; }
[ $fail -eq 0 ] || echo "$output"
exit $fail
