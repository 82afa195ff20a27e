#!/usr/bin/env bash
# The manual pages are sound mdoc(7), style included. usage: man_lint.sh [SOURCES]
set -euo pipefail
sources=${1:-$(dirname "$(readlink -f "$0")")/../..}
command -v mandoc >/dev/null || { echo "SKIP: there is no mandoc"; exit 77; }
# Which other pages there are depends on the host; those of this program are looked for here.
complaints=$(mandoc -Tlint "$sources"/man/* 2>/dev/null | grep -v ': referenced manual not found: ' || true)
while read -r name section; do
  [ -e "$sources/man/$name.$section" ] || complaints+=$'\n'"there is no page for .Xr $name $section"
done < <(sed -n -E 's/^\.Xr ((coimg|add-cow)[^ ]*) ([0-9]).*/\1 \3/p' "$sources"/man/* | sort -u)
[ -z "$complaints" ] || { printf '%s\n' "$complaints"; exit 1; }
