#!/usr/bin/env bash
# No option is undocumented, and the manual documents none that is not there. usage: man_matches_help.sh COIMG
set -euo pipefail
coimg=$(readlink -f "${1:?usage: man_matches_help.sh COIMG}")
manual=$(dirname "$(readlink -f "$0")")/../../man/coimg.1
fail=0

# options_in_manual SECTION: all words like -x and --long in the section of a command, or in what stands before the first.
options_in_manual() {
  sed -e 's/\\-/-/g' -e 's/\\f[A-Z]//g' "$manual" |
    awk -v section="$1" '/^\.SH/ {on = 0; name = ""} /^\.SH COMMANDS/ {name = "common"} /^\.SS/ {name = $2} name == section' |
    grep -oE '(^|[^A-Za-z0-9_-])--?[A-Za-z][A-Za-z-]*' | grep -oE -- '--?[A-Za-z][A-Za-z-]*' | sort -u
}
options_in_help() {
  "$coimg" "$1" --help | grep -oE '^ +-[^ ].*' | grep -oE '(^ +|,)-{1,2}[A-Za-z][A-Za-z-]*(,-{1,2}[A-Za-z][A-Za-z-]*)*' |
    tr ', ' '\n\n' | grep -E '^-' | sort -u
}
for command in bitmap check commit compare convert create dd info io map measure rebase resize snapshot; do
  [ -n "$(options_in_help $command)" ] || { echo "$command --help lists no options"; fail=1; }
  for option in $(comm -23 <(options_in_help $command) <({ options_in_manual common; options_in_manual $command; } | sort -u)); do
    echo "$command $option is not in the manual"
    fail=1
  done
  for option in $(comm -13 <(options_in_help $command) <(options_in_manual $command)); do
    echo "$command $option is in the manual only"
    fail=1
  done
done
exit $fail
