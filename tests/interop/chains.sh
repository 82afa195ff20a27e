#!/usr/bin/env bash
# Backing chains that are changed: rebase, commit and resize by one program or the other. Both find every image sound, and
# both read from it what was there before.
. "$(dirname "$0")/lib.sh"

RANDOM=43
programs=(qemu-img "$coimg")

# At random one of the two.
either() { "${programs[RANDOM % 2]}" "$@"; }

# examine NAME IMAGE DIGEST
examine() {
  sound "$1" "$2"
  [ "$(content "$2" qcow2)" = "$3" ] || fail "$1: qemu-img reads other bytes from $2 than before"
  same_content "$1" "$2" qcow2 "$3"
}

# make_chain OPTIONS: base (raw), other (a copy of it with changes), middle and top (overlays), all with content.
make_chain() {
  rm -f ./*.raw ./*.qcow2
  truncate -s 8M base.raw
  scribble base.raw raw 1
  cp base.raw other.raw
  qemu-io -f raw -c 'write -P 77 1M 300k' -c 'write -z 3M 100k' -c 'write -P 78 5000000 512' other.raw >/dev/null
  qemu-img create -q -f qcow2 ${1:+-o "$1"} -b base.raw -F raw middle.qcow2
  scribble middle.qcow2 qcow2 2
  qemu-img create -q -f qcow2 ${1:+-o "$1"} -b middle.qcow2 -F qcow2 top.qcow2 9M
  scribble top.qcow2 qcow2 3
  qemu-io -f qcow2 -c 'write -P 79 8600k 100k' top.qcow2 >/dev/null
}

for options in "" cluster_size=4k,refcount_bits=4 cluster_size=512 compat=0.10 cluster_size=2M extended_l2=on,cluster_size=32k; do
  make_chain "$options"
  before=$(content top.qcow2 qcow2)
  middle=$(content middle.qcow2 qcow2)
  "$coimg" rebase -b base.raw -F raw top.qcow2
  examine "$options: rebased onto a member of the chain" top.qcow2 "$before"
  "$coimg" rebase -b other.raw -F raw top.qcow2
  examine "$options: rebased onto another file" top.qcow2 "$before"
  either rebase -b middle.qcow2 -F qcow2 top.qcow2
  examine "$options: rebased back" top.qcow2 "$before"
  "$coimg" rebase -b '' top.qcow2
  examine "$options: rebased onto nothing" top.qcow2 "$before"
  "$coimg" rebase -b other.raw -F raw top.qcow2
  examine "$options: rebased from nothing" top.qcow2 "$before"
  [ "$(content middle.qcow2 qcow2)" = "$middle" ] || fail "$options: a backing file has changed"

  make_chain "$options"
  "$coimg" commit -q top.qcow2
  examine "$options: committed" top.qcow2 "$before"
  examine "$options: the backing file of what was committed" middle.qcow2 "$before"
  [ "$(qemu-img map --output=json top.qcow2 | grep -c '"depth": 0, "present": true')" -eq 0 ] || fail "$options: not emptied"
  scribble top.qcow2 qcow2 4
  before=$(content top.qcow2 qcow2)
  either commit -q top.qcow2
  examine "$options: committed again" top.qcow2 "$before"
  "$coimg" commit -q middle.qcow2
  [ "$(content base.raw raw)" = "$before" ] || fail "$options: the base does not have what was committed"
  examine "$options: all committed" top.qcow2 "$before"

  make_chain "$options"
  before=$(content top.qcow2 qcow2)
  "$coimg" commit -q -b base.raw top.qcow2
  [ "$(content base.raw raw)" = "$before" ] || fail "$options: the base after -b"
  examine "$options: the overlay after -b" top.qcow2 "$before"
done

# New space is zeros, and what was there stays, however it grows.
for options in "" cluster_size=4k cluster_size=512,refcount_bits=1 compat=0.10 extended_l2=on,cluster_size=16k; do
  qemu-img create -q -f qcow2 ${options:+-o "$options"} image.qcow2 8M
  scribble image.qcow2 qcow2 5
  qemu-img convert -f qcow2 -O raw image.qcow2 expected.raw
  size=8388608
  for mode in off metadata full falloc off full metadata; do
    size=$((size + RANDOM % 3000 * 512 + 512))
    "$coimg" resize -q -f qcow2 --preallocation=$mode image.qcow2 $size
    truncate -s $size expected.raw
    examine "$options: grown with $mode" image.qcow2 "$(content expected.raw raw)"
    if [ $((RANDOM % 2)) -eq 0 ]; then
      size=$((size - RANDOM % 2000 * 512))
      either resize -q -f qcow2 --shrink image.qcow2 $size
      truncate -s $size expected.raw
      examine "$options: shrunk" image.qcow2 "$(content expected.raw raw)"
    fi
  done
done

# dd as dd does it.
make_chain ""
qemu-img convert -O raw top.qcow2 flat.raw
for window in "bs=1M skip=1 count=5" "bs=1000 skip=77 count=5000" "bs=64k" "bs=7 skip=100000 count=700000"; do
  # shellcheck disable=SC2086
  "$coimg" dd $window if=top.qcow2 of=ours.raw
  # shellcheck disable=SC2086
  qemu-img dd $window if=top.qcow2 of=theirs.raw
  cmp ours.raw theirs.raw || fail "dd $window"
  # shellcheck disable=SC2086
  "$coimg" dd -O qcow2 $window if=top.qcow2 of=ours.qcow2
  examine "dd $window" ours.qcow2 "$(content theirs.raw raw)"
done
