#!/usr/bin/env bash
# Counts the instructions of the hot loops under callgrind: the same on a busy machine and on an idle one. Fails when one
# takes 10 % more than instructions.txt has for it. usage: [UPDATE=1] instructions.sh HOT_LOOPS
# With UPDATE=1 it writes down today's counts instead.
set -euo pipefail
program=$(readlink -f "${1:?usage: [UPDATE=1] instructions.sh HOT_LOOPS}")
recorded=$(dirname "$(readlink -f "$0")")/instructions.txt
allowed_percent=10
command -v valgrind >/dev/null || { echo "skipped: no valgrind"; exit 77; }
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# Which of its loops libc chooses for memcpy depends on the processor; these two stay out, so that fewer counts do.
export GLIBC_TUNABLES=glibc.cpu.hwcaps=-ERMS,-FSRM

# Under valgrind as well, which does not pass on all that a processor has.
built="# $(valgrind -q "$program" --built)"
if [ -z "${UPDATE:-}" ] && ! grep -qxF "$built" "$recorded"; then
  echo "skipped: the recorded counts are of $(sed -n '1s/^# //p' "$recorded"); this is ${built#\# }"
  exit 77
fi

valgrind --tool=callgrind --instr-atstart=no --callgrind-out-file="$work/out" "$program" >"$work/log" 2>&1 ||
  { cat "$work/log" >&2; exit 1; }
# A file for each loop, which names it and has its total.
mapfile -t dumps < <(printf '%s\n' "$work"/out.* | sort -V)
awk '/^desc: Trigger: Client Request: / {name = $NF} /^totals: / && name {print name, $2; name = ""}' \
  "${dumps[@]}" >"$work/counts"

if [ -n "${UPDATE:-}" ]; then
  { echo "$built"; cat "$work/counts"; } >"$recorded"
  cat "$recorded"
  exit
fi
failed=0
while read -r name before; do
  [ "$name" != '#' ] || continue
  now=$(awk -v name="$name" '$1 == name {print $2}' "$work/counts")
  if [ -z "$now" ]; then
    echo "FAILED: $name is recorded, and not counted any more"
    failed=1
    continue
  fi
  printf '%-42s %10d  %+6.1f %%\n' "$name" "$now" "$(awk "BEGIN {print 100 * ($now - $before) / $before}")"
  if [ "$now" -gt $((before * (100 + allowed_percent) / 100)) ]; then
    echo "FAILED: $name takes $now instructions, and $before when they were recorded"
    failed=1
  fi
done <"$recorded"
while read -r name _; do
  grep -q "^$name " "$recorded" || { echo "FAILED: $name is not recorded"; failed=1; }
done <"$work/counts"
if [ $failed = 1 ]; then
  echo "If that is meant to be: UPDATE=1 tests/bench/instructions.sh $1 records what is counted now."
fi
exit $failed
