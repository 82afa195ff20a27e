#!/usr/bin/env bash
# compat.sh compares at least 300 command lines with qemu-img's, and among them every option of every command that qemu-img has
# too. usage: compat_coverage.sh COIMG
set -euo pipefail
here=$(dirname "$(readlink -f "$0")")
coimg=$(readlink -f "${1:?usage: compat_coverage.sh COIMG}")
readonly least=300
fail=0

lines=$(LIST=1 "$here/compat.sh" "$coimg")
case $lines in SKIP*) echo "$lines"; exit 77 ;; esac

# What there is only here.
ours='bench --object
convert --compression-level
convert --verify
convert -b
measure --detect-zeroes'
our_commands='batch checksum io'  # of which io is compared with qemu-io

# Options of a command, with all their names.
options() {
  "$coimg" "$1" --help | grep -oE '^ +-[^ ].*' | grep -oE '^ +-{1,2}[A-Za-z-]+(,-{1,2}[A-Za-z-]+)*' | tr ', ' '\n\n' | grep . |
    grep -vxFf <(sed -n "s/^$1 //p" <<<"$ours") || true
}

total=0
for command in $("$coimg" --help | sed -n '/^Commands:/,/^$/s/^  \([a-z]*\) .*/\1/p'); do
  [[ " $our_commands " != *" $command "* ]] || continue
  # One command a line, each with what follows it up to the next.
  calls=$(grep -oE "qemu-img $command( [^;|&]*)?$|qemu-img $command( [^;|&]*)" <<<"$lines" || true)
  count=$(grep -c "qemu-img $command\b" <<<"$lines" || true)
  total=$((total + count))
  echo "$command: $count"
  for option in $(options "$command"); do
    case $option in
      --*) pattern=" $option( |=|$)" ;;
      *) pattern=" -[A-Za-z]*${option#-}" ;;
    esac
    grep -qE -- "$pattern" <<<"$calls" || { echo "no command line with $command $option"; fail=1; }
  done
done
echo "$total command lines, without those of io"
[ "$total" -ge "$least" ] || { echo "fewer than $least"; fail=1; }
exit "$fail"
