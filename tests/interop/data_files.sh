#!/usr/bin/env bash
# External data files: each program reads what the other wrote, finds it sound, resizes and discards in it; a raw one is
# the disk, to the byte.
. "$(dirname "$0")/lib.sh"

RANDOM=44
programs=(qemu-img "$coimg")
either() { "${programs[RANDOM % 2]}" "$@"; }

# examine NAME DIGEST: image.qcow2 on data.raw.
examine() {
  sound "$1" image.qcow2
  [ "$(content image.qcow2 qcow2)" = "$2" ] || fail "$1: qemu-img reads other bytes"
  same_content "$1" image.qcow2 qcow2 "$2"
  case $1 in *raw=on*) "$coimg" compare -q -f raw -F qcow2 data.raw image.qcow2 || fail "$1: the data file is no raw image" ;; esac
}

truncate -s 8000k source.raw
scribble source.raw raw 5
before=$(content source.raw raw)
for options in "" ,data_file_raw=on ,extended_l2=on ,cluster_size=4k ,cluster_size=512,data_file_raw=on \
  ,preallocation=metadata ,preallocation=full,data_file_raw=on ,extended_l2=on,data_file_raw=on; do
  for program in "${programs[@]}"; do
    name="$program$options"
    rm -f image.qcow2 data.raw
    "$program" convert -f raw -O qcow2 -o "data_file=data.raw$options" source.raw image.qcow2
    examine "$name" "$before"
    scribble image.qcow2 qcow2 6
    qemu-io -f qcow2 -c 'discard 1M 1M' -c 'write -z 2M 100k' -c 'write -zu 3M 64k' image.qcow2 >/dev/null
    after=$(content image.qcow2 qcow2)
    examine "$name, written" "$after"
    either resize -q image.qcow2 9M
    either resize -q --shrink image.qcow2 8000k
    examine "$name, resized" "$after"
    "$coimg" convert -n -O qcow2 source.raw image.qcow2
    examine "$name, written again" "$before"
    either bitmap --add image.qcow2 b
    examine "$name, with a bitmap" "$before"
  done
done

# With a backing file, and as one.
either convert -O qcow2 source.raw base.qcow2
"$coimg" create -q -f qcow2 -o data_file=top.raw,cluster_size=4k -b base.qcow2 -F qcow2 top.qcow2
scribble top.qcow2 qcow2 7
after=$(content top.qcow2 qcow2)
same_content "an overlay with a data file" top.qcow2 qcow2 "$after"
"$coimg" create -q -f qcow2 -b top.qcow2 -F qcow2 over.qcow2
scribble over.qcow2 qcow2 8
after=$(content over.qcow2 qcow2)
"$coimg" commit -q over.qcow2
same_content "committed into a data file" top.qcow2 qcow2 "$after"
sound "committed into a data file" top.qcow2
"$coimg" rebase -b '' top.qcow2
[ "$(content top.qcow2 qcow2)" = "$after" ] || fail "a rebased overlay with a data file: other bytes"

# An image is not its own data file.
rm -f image.qcow2
! "$coimg" create -q -f qcow2 -o data_file=image.qcow2 image.qcow2 1M 2>/dev/null || fail "an image is its own data file"
