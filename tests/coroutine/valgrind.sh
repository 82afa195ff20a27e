#!/usr/bin/env bash
# usage: valgrind.sh TEST_PROGRAM. Coroutine tests under Valgrind, which has to know where each stack is: else it warns
# of "client switching stacks", and takes what one coroutine leaves on its stack for errors of another.
set -euo pipefail
command -v valgrind >/dev/null || exit 77

output=$(valgrind -q --error-exitcode=9 --leak-check=full --errors-for-leak-kinds=definite "$1" \
  --gtest_brief=1 --gtest_filter='CoroutineTest.*:CoQueueTest.*:CoMutexTest.*:CoRwlockTest.*:StackTest.StacksAreReused' 2>&1) ||
  { echo "$output"; exit 1; }
echo "$output"
# What Valgrind itself has to say begins with ==PID==.
if grep -q '^==' <<<"$output"; then exit 1; fi
grep -q 'PASSED' <<<"$output"
