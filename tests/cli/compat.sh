#!/bin/bash
# Runs command lines with the qemu-img and qemu-io that are installed and with coimg under these names, in equal fresh
# directories, and compares what they print and their exit codes: compat.sh COIMG [GROUP...]
#
# The tables are in compat_*table.sh, as calls of
#     group NAME            the files to start with: what setup_NAME makes
#     same 'COMMAND'        everything has to be equal
#     differs WHAT 'WHY' 'COMMAND'
#                           a known difference in WHAT: a comma-separated list of stdout, stderr and exit. The rest has to
#                           be equal; and so that the list does not outlive its reasons, there has to be a difference
#     needs FEATURE 'COMMAND'
#                           the same as same, when the program has the feature: nbd, encryption
# SLICE=K/N runs each Nth of them, from the Kth on. COIMG_AIO is set by turns, so that both I/O engines have their share;
# where it is given it stays.
# LIST=1 prints the command lines and runs nothing.
set -u

here=$(cd "$(dirname "$0")" && pwd)
coimg=$(realpath "${1:?usage: compat.sh COIMG [GROUP...]}")
shift
wanted=" $* "
peer=$(command -v qemu-img) || { echo "SKIP: there is no qemu-img to compare with"; exit 77; }
command -v qemu-io >/dev/null || { echo "SKIP: there is no qemu-io to compare with"; exit 77; }
case $(qemu-img --version) in
  "qemu-img version 7.2."*) ;;
  *) echo "SKIP: the expectations are those of qemu-img 7.2"; exit 77 ;;
esac

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
mkdir "$scratch/ours" "$scratch/theirs" "$scratch/ours.said" "$scratch/theirs.said"
ln -s "$coimg" "$scratch/ours/qemu-img"
ln -s "$peer" "$scratch/theirs/qemu-img"
ln -s "$coimg" "$scratch/ours/qemu-io"
ln -s "$(command -v qemu-io)" "$scratch/theirs/qemu-io"
unset POSIXLY_CORRECT COIMG_LOG
export LC_ALL=C TZ=UTC

equal=0 different=0 allowed=0 current= prepared= number=0
slice=${SLICE:-1/1}
engines=(${COIMG_AIO:-threads io_uring})

group() { current=$1; }

# Makes the files of a group once; every command starts with a copy.
prepare() {
  [ "$prepared" != "$current" ] || return 0
  prepared=$current
  rm -rf "$scratch/template"
  mkdir "$scratch/template"
  (cd "$scratch/template" && "setup_$current") >"$scratch/setup.log" 2>&1 ||
    { echo "setting up group $current failed:"; cat "$scratch/setup.log"; exit 1; }
}

# Whether to run what comes.
selected() {
  if [ -n "${LIST:-}" ]; then
    printf '%s\n' "$1"
    return 1
  fi
  [ "$wanted" = "  " ] || [[ $wanted == *" $current "* ]] || return 1
  number=$((number + 1))
  export COIMG_AIO=${engines[number / ${slice#*/} % ${#engines[@]}]}
  [ $((number % ${slice#*/})) -eq $((${slice%/*} % ${slice#*/})) ] && prepare
}

# How long a request took, and how fast that was.
hide_times() {
  sed -E -i -e 's/ops; ([0-9:.]+ sec|[0-9]+:[0-9:.]+) \([^)]*\)/ops; TIME (RATE)/' \
    -e 's/^([0-9]+),1,[0-9:.]+,[0-9.]+,[0-9.]+$/\1,1,TIME,RATE/' \
    -e 's/^Run completed in [0-9]+[.][0-9]{3} seconds[.]$/Run completed in TIME/' "$1"
}

# Runs command $2 with the programs in $1 ("ours" or "theirs").
run_side() {
  local said=$scratch/$1.said
  rm -rf "$scratch/work"
  cp -a --sparse=auto "$scratch/template" "$scratch/work"
  (cd "$scratch/work" && PATH="$scratch/$1:$PATH" exec timeout 120 bash -c "$2") \
    >"$said/stdout" 2>"$said/stderr" </dev/null
  echo $? >"$said/exit"
  case $2 in
    *qemu-io* | *bench*) hide_times "$said/stdout" ;;
  esac
}

# What the sides said of files' place on the disk is all that differs.
only_disk_sizes_differ() {
  [ "$differing" = " stdout" ] &&
    cmp -s <(hide_disk_sizes "$scratch/theirs.said/stdout") <(hide_disk_sizes "$scratch/ours.said/stdout")
}
hide_disk_sizes() { sed -E -e 's/^( *disk size): .*/\1/' -e 's/("actual-size"): [0-9]+/\1/' "$1"; }

# Runs both sides; leaves in `differing` what is not equal. What a file takes of the disk is settled when the kernel has
# written it back, so a difference in that alone has to stay.
run_both() {
  for _ in 1 2 3 4; do
    run_side theirs "$1"
    run_side ours "$1"
    differing=
    diff -rq "$scratch/theirs.said" "$scratch/ours.said" >/dev/null && return
    for what in stdout stderr exit; do
      cmp -s "$scratch/theirs.said/$what" "$scratch/ours.said/$what" || differing="$differing $what"
    done
    only_disk_sizes_differ || return 0
    sync -f "$scratch"
  done
}

report() {
  different=$((different + 1))
  printf 'DIFFERENT [%s] %s\n' "$current" "$1"
  for what in $differing; do
    diff -u --label "qemu-img $what" "$scratch/theirs.said/$what" --label "coimg $what" "$scratch/ours.said/$what"
  done
}

same() {
  selected "$1" || return 0
  run_both "$1"
  if [ -z "$differing" ]; then equal=$((equal + 1)); else report "$1"; fi
}

differs() {
  selected "$3" || return 0
  run_both "$3"
  if [ -z "$differing" ]; then
    different=$((different + 1))
    printf 'EQUAL NOW [%s] %s\n    the reason was: %s\n' "$current" "$3" "$2"
    return
  fi
  for what in $differing; do
    if [[ ,$1, != *",$what,"* ]]; then
      report "$3"
      return
    fi
  done
  allowed=$((allowed + 1))
}

needs() {
  case ${LIST:+listed}$1 in
    nbd) "$coimg" --help | grep -q '^Supported formats:.* nbd' || return 0 ;;
    encryption)
      "$coimg" create -q -f qcow2 --object secret,id=k,data=x -o encrypt.format=aes,encrypt.key-secret=k \
        "$scratch/encrypted" 1M 2>/dev/null || return 0
      ;;
  esac
  same "$2"
}

# shellcheck source=tests/cli/compat_table.sh
. "$here/compat_table.sh"
# shellcheck source=tests/cli/compat_options_table.sh
. "$here/compat_options_table.sh"
# shellcheck source=tests/cli/compat_failures_table.sh
. "$here/compat_failures_table.sh"
# shellcheck source=tests/cli/compat_io_table.sh
. "$here/compat_io_table.sh"
[ -z "${LIST:-}" ] || exit 0
echo "$equal equal, $different different, $allowed known differences"
[ "$different" -eq 0 ]
