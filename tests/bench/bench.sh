#!/usr/bin/env bash
# Whole commands side by side with qemu-img, in one run, in pairs: the median of the pairwise ratios, and peak memory.
# usage: bench.sh COIMG [SUITE] [--json] [--pairs N]
# The suites are the files in suites/; `all` runs each of them, and without one it is convert.
# N pairs of what takes a second or two, and varies most; a third of that where compressing takes long.
# --json prints an object a line.
set -euo pipefail
usage='usage: bench.sh COIMG [convert|compress|decompress|compare|inspect|all] [--json] [--pairs N]'
here=$(dirname "$(readlink -f "$0")")
coimg=$(readlink -f "${1:?$usage}")
shift
suite=convert
case ${1:-} in
  '' | -*) ;;
  *) suite=$1; shift ;;
esac
json=false pairs=12
while [ $# -gt 0 ]; do
  case $1 in
    --json) json=true ;;
    --pairs) pairs=${2:?$usage}; shift ;;
    *) echo "bench.sh: unknown argument $1; $usage" >&2; exit 1 ;;
  esac
  shift
done
suites=("$suite")
[ "$suite" != all ] || suites=(convert compress decompress compare inspect)
for suite in "${suites[@]}"; do
  [ -f "$here/suites/$suite.sh" ] || { echo "bench.sh: no suite '$suite'; $usage" >&2; exit 1; }
done

PATH=$PATH:/sbin:/usr/sbin
work=$(mktemp -d "${COIMG_BENCH_DIR:-/var/tmp}/coimg-bench.XXXXXX")
trap 'rm -rf "$work"' EXIT
cd "$work"
reference=$(command -v qemu-img)
few=$(((pairs + 2) / 3))
. "$here/samples.sh"
. "$here/side_by_side.sh"
$json || echo "Pairs: $pairs, $few with -c; the ratio says how many times faster coimg is."
for suite in "${suites[@]}"; do
  . "$here/suites/$suite.sh"
done
