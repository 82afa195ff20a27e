#!/bin/bash
# Runs the command-line cases: run.sh COIMG [CASE...]
#
# A case is COMMAND/NAME.sh with, beside it, what it has to produce:
#     NAME.stdout.exact   its standard output, byte for byte
#     NAME.stdout.glob    the same, each line a shell pattern; a line "..." stands for any number of lines
#     NAME.stderr.exact, NAME.stderr.glob
#     NAME.exit           its exit code
# A missing file stands for nothing printed, and for exit code 0. Each case runs in an empty directory of its own with
# `coimg` and the same program as `qemu-img` first in PATH.
#
# REFERENCE=1 runs the cases against the qemu-img that is installed, to see that the expectations themselves are right.
# Cases that have "# coimg only" in them are about what differs, and are left out then. UPDATE=1 writes .exact files.
set -u

here=$(cd "$(dirname "$0")" && pwd)
coimg=$(realpath "${1:?usage: run.sh COIMG [CASE...]}")
shift
reference=
if [ -n "${REFERENCE:-}" ]; then
  reference=$(command -v qemu-img) || { echo "SKIP: there is no qemu-img to refer to"; exit 77; }
fi

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
mkdir "$scratch/bin"
if [ -n "$reference" ]; then
  ln -s "$reference" "$scratch/bin/qemu-img"
else
  ln -s "$coimg" "$scratch/bin/coimg"
  ln -s "$coimg" "$scratch/bin/qemu-img"
fi
# Cases with "# not sanitized" in them limit the memory, of which sanitizers map terabytes.
sanitized=$(ldd "$coimg" | grep -E 'lib[at]san' || true)
unset POSIXLY_CORRECT COIMG_LOG
export PATH="$scratch/bin:$PATH" LC_ALL=C TZ=UTC

# What differs from run to run or host to host.
filter() { sed -e "s|$scratch|SCRATCH|g" "$1"; }

# Whether the lines of file $1 match the patterns of file $2.
matches_glob() {
  local -a lines patterns
  mapfile -t lines <"$1"
  mapfile -t patterns <"$2"
  local i=0 any=
  for pattern in "${patterns[@]}"; do
    if [ "$pattern" = ... ]; then any=1; continue; fi
    while :; do
      [ "$i" -lt "${#lines[@]}" ] || return 1
      # shellcheck disable=SC2053 # a pattern on purpose
      if [[ ${lines[$i]} == $pattern ]]; then i=$((i + 1)); break; fi
      [ -n "$any" ] || return 1
      i=$((i + 1))
    done
    any=
  done
  [ -n "$any" ] || [ "$i" -eq "${#lines[@]}" ]
}

# Compares one stream of case $1 (without .sh) with what is expected; $2 is its name, $3 what came out.
check_stream() {
  local expected=$1.$2
  filter "$3" >"$3.filtered"
  if [ -n "${UPDATE:-}" ] && [ ! -e "$expected.glob" ]; then
    rm -f "$expected.exact"
    [ -s "$3.filtered" ] && cp "$3.filtered" "$expected.exact"
    return 0
  fi
  if [ -e "$expected.glob" ]; then
    matches_glob "$3.filtered" "$expected.glob" && return 0
    diff -u --label "expected $2" "$expected.glob" --label "$2" "$3.filtered"
    return 1
  fi
  [ -e "$expected.exact" ] || expected=/dev/null
  [ "$expected" = /dev/null ] || expected=$expected.exact
  diff -u --label "expected $2" "$expected" --label "$2" "$3.filtered"
}

run_case() {
  local script=$1 base=${1%.sh} failed=0 code want=0
  rm -rf "$scratch/work"
  mkdir "$scratch/work"
  (cd "$scratch/work" && exec timeout 60 bash -u "$script") >"$scratch/stdout" 2>"$scratch/stderr" </dev/null
  code=$?
  if [ -n "${UPDATE:-}" ]; then
    rm -f "$base.exit"
    [ "$code" -eq 0 ] || echo "$code" >"$base.exit"
  fi
  [ -e "$base.exit" ] && want=$(cat "$base.exit")
  check_stream "$base" stdout "$scratch/stdout" || failed=1
  check_stream "$base" stderr "$scratch/stderr" || failed=1
  [ "$code" = "$want" ] || { echo "exit code $code, expected $want"; failed=1; }
  return "$failed"
}

if [ $# -gt 0 ]; then
  cases=("$@")
else
  cases=("$here"/*/*.sh)
fi
passed=0 failed=0 left_out=0
for script in "${cases[@]}"; do
  script=$(realpath "$script")
  name=${script#"$here"/}
  if { [ -n "$reference" ] && grep -q '^# coimg only' "$script"; } ||
    { [ -n "$sanitized" ] && grep -q '^# not sanitized' "$script"; }; then
    left_out=$((left_out + 1))
  elif report=$(run_case "$script"); then
    passed=$((passed + 1))
  else
    failed=$((failed + 1))
    printf 'FAILED %s\n%s\n' "$name" "$report"
  fi
done
echo "$passed passed, $failed failed, $left_out left out"
[ "$failed" -eq 0 ]
