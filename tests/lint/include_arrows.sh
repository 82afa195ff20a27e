#!/usr/bin/env bash
# Includes point one way: cmd -> formats, block, coroutine; formats -> block, coroutine; block -> coroutine. Formats do not
# include each other, block and cmd no driver. `include_arrows.sh DIR` checks the tree DIR.
set -euo pipefail
cd "${1:-$(dirname "$0")/../..}"
bad=0

# forbid ROOM PATTERN: no file of ROOM may include a path that matches PATTERN.
forbid() {
  local room=$1 pattern=$2 hits
  hits=$(grep -rnE "^[[:space:]]*#[[:space:]]*include[[:space:]]*\"$pattern" --include='*.h' --include='*.cc' "$room") || return 0
  printf 'forbidden in %s/:\n%s\n' "$room" "$hits"
  bad=1
}

forbid coroutine '(block|formats|cmd|tests)/'
forbid block '(formats|cmd|tests)/'
forbid formats '(cmd|tests)/'
forbid cmd '(tests|formats/[^"]*/|formats/(raw))'
for driver in formats/*/; do
  for other in formats/*/; do
    [ "$driver" = "$other" ] || forbid "${driver%/}" "$other"
  done
done
grep -q include coroutine/coroutine.h || { echo "nothing was looked at"; exit 1; }
exit $bad
