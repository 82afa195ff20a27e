#!/usr/bin/env bash
# No option is undocumented, and the manual documents none that is not there; and each command has a page of its own, which
# shows all its options in its synopsis too. usage: man_matches_help.sh COIMG [SOURCES]
set -euo pipefail
coimg=$(readlink -f "${1:?usage: man_matches_help.sh COIMG [SOURCES]}")
sources=${2:-$(dirname "$(readlink -f "$0")")/../..}
fail=0

complain() {
  echo "$*"
  fail=1
}

# compare COMMAND WHAT LEFT RIGHT: every word of LEFT (what the program has) is in RIGHT, and none is there only.
compare() {
  local word
  for word in $(comm -23 <(echo "$3") <(echo "$4")); do complain "$1: $word is not in $2"; done
  for word in $(comm -13 <(echo "$3") <(echo "$4")); do complain "$1: $word is in $2 only"; done
}

words() { grep -v '^$' | sort -u; }

options_in_help() {
  "$coimg" ${1:+"$1"} --help | sed '/^Commands:/,$d' | grep -oE '^ +-[^ ].*' |
    grep -oE '(^ +|, ?)-{1,2}[A-Za-z][A-Za-z-]*(, ?-{1,2}[A-Za-z][A-Za-z-]*)*' | tr ', ' '\n\n' | grep -E '^-' | words
}

# section PAGE NAME: the lines of one section of a page.
section() { awk -v name=".Sh $2" '/^\.Sh / {on = $0 == name; next} on' "$1"; }

# The options of items of a list: .It Fl q , Fl Fl quiet Ar value
options_in_items() {
  grep '^\.It Fl' | sed -E -e 's/^\.It //' -e 's/Fl Fl ([A-Za-z-]+)/--\1/g' -e 's/Fl ([A-Za-z])/-\1/g' | tr ' ' '\n' |
    grep -E '^--?[A-Za-z]' | words
}

# Of each option one name: in a synopsis letters can be grouped.
options_in_synopsis() {
  sed -E -e 's/Fl Fl ([A-Za-z-]+)/\n--\1\n/g' |
    sed -E -e ':again' -e 's/^(.*)Fl ([A-Za-z])([A-Za-z]*)( |$)(.*)$/\1\n-\2\nFl \3 \5/;tagain' | grep -oE '^--?[A-Za-z][A-Za-z-]*' |
    words
}

commands=$("$coimg" --help | sed -n '/^Commands:/,/^$/s/^  \([a-z]*\) .*/\1/p' | sort)
[ -n "$commands" ] || complain "--help lists no commands"

compare "coimg" "man/coimg.1" "$(options_in_help '' | words)" "$(section "$sources/man/coimg.1" 'GLOBAL OPTIONS' | options_in_items)"
compare "coimg" "the list of commands in man/coimg.1" "$commands" \
  "$(section "$sources/man/coimg.1" DESCRIPTION | sed -n 's/^\.It Cm \([a-z]*\)$/\1/p' | words)"
compare "coimg" "the pages of commands" "$commands" \
  "$(cd "$sources/man" && printf '%s\n' coimg-*.1 | sed 's/coimg-\(.*\)\.1/\1/' | words)"

for command in $commands; do
  page=$sources/man/coimg-$command.1
  [ -e "$page" ] || continue # complained about above
  in_help=$(options_in_help "$command")
  [ -n "$in_help" ] || complain "$command --help lists no options"
  "$coimg" "$command" --help | grep -q "coimg-$command(1)" || complain "$command --help does not name its page"
  compare "$command" "man/coimg-$command.1" "$in_help" "$(section "$page" OPTIONS | options_in_items)"

  synopsis=$(section "$page" SYNOPSIS | options_in_synopsis)
  compare "$command" "the synopsis of man/coimg-$command.1" "$(comm -12 <(echo "$synopsis") <(echo "$in_help"))" "$synopsis"
  while read -r item; do
    [ -n "$(comm -12 <(echo "$synopsis") <(options_in_items <<<"$item"))" ] ||
      complain "$command: the synopsis of its page lacks ${item#.It }"
  done < <(section "$page" OPTIONS | grep '^\.It Fl')
  for part in DESCRIPTION 'EXIT STATUS' EXAMPLES 'SEE ALSO'; do
    [ -n "$(section "$page" "$part")" ] || complain "man/coimg-$command.1 has no section $part"
  done
  [ "$(section "$page" EXAMPLES | grep -c '^\.Bd')" -ge 2 ] || complain "man/coimg-$command.1 has fewer than two examples"
done
exit $fail
