#!/usr/bin/env bash
# The examples of the manual pages work as they are shown: each page's are run one after the other in an empty directory, and
# print what stands below them. usage: man_examples.sh COIMG [PAGE...]
set -euo pipefail
coimg=$(readlink -f "${1:?usage: man_examples.sh COIMG [PAGE...]}")
shift
[ $# -gt 0 ] || set -- "$(dirname "$(readlink -f "$0")")"/../../man/*
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir "$work/bin"
ln -s "$coimg" "$work/bin/coimg"
export PATH="$work/bin:$PATH" LC_ALL=C TZ=UTC
fail=0 ran=0

# The displays of the section EXAMPLES as they are read.
examples() {
  awk '/^\.Sh / {on = $0 == ".Sh EXAMPLES"; next} /^\.Bd/ {shown = on; next} /^\.Ed/ {if (shown) print "\f"; shown = 0} shown' "$1" |
    sed -e 's/\\e/\\/g' -e 's/\\&//g'
}

for page in "$@"; do
  # A command is a line after "$ ", and goes on after a "\" or a "|"; the lines below are its output.
  examples "$page" | awk -v script="$work/script" '
    function finish() {if (command != "") print command > script; command = ""; more = 0}
    /^\f/ {finish(); next}
    /^\$ / {finish(); command = substr($0, 3); more = /[\\|]$/; next}
    more {command = command "\n" $0; more = /[\\|]$/; next}
    command != "" {print}' >"$work/expected"
  [ -s "$work/script" ] || continue
  rm -rf "$work/run"
  mkdir "$work/run"
  code=0
  (cd "$work/run" && exec timeout 300 bash -euo pipefail "$work/script") >"$work/printed" 2>&1 </dev/null || code=$?
  if [ "$code" -ne 0 ] || ! diff -u --label shown "$work/expected" --label printed "$work/printed"; then
    echo "FAILED ${page##*/}, exit code $code"
    fail=1
  fi
  ran=$((ran + $(wc -l <"$work/script")))
  rm "$work/script"
done
echo "$ran lines of examples"
[ "$ran" -gt 0 ] || fail=1
exit "$fail"
