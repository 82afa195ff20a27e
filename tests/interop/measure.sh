#!/usr/bin/env bash
# measure as coimg: to the byte the size of the file that convert makes. As qemu-img: its figures.
. "$(dirname "$0")/lib.sh"
as_qemu_img() { COIMG_COMPAT=qemu-img "$coimg" "$@"; }

# required IMAGE FORMAT OPTIONS [ARGUMENT...]: what measure says.
required() {
  local image=$1 format=$2 options=$3
  shift 3
  "$coimg" measure "$@" -f "$format" -O qcow2 -o "$options" "$image" | sed -n 's/^required size: //p'
}

# exact NAME IMAGE FORMAT OPTIONS [ARGUMENT...]: convert's file is as long as measure says, and sound.
exact() {
  local name=$1 image=$2 format=$3 options=$4 said made
  shift 4
  next_engine
  said=$(required "$image" "$format" "$options" "$@")
  rm -f target.qcow2 target.data
  "$coimg" convert -f "$format" -O qcow2 -o "$options" "$image" target.qcow2
  made=$(stat -c %s target.qcow2)
  [ ! -e target.data ] || made=$((made + $(stat -c %s target.data)))
  [ "$said" = "$made" ] || fail "$name, $options: measure says $said bytes, convert makes $made"
  [ "$as_qemu_img_too" = false ] ||
    [ "$(as_qemu_img measure -f "$format" -O qcow2 -o "$options" "$image")" = \
      "$(qemu-img measure -f "$format" -O qcow2 -o "$options" "$image")" ] ||
    fail "$name, $options: as qemu-img, other figures than qemu-img"
}

options_of_images=(
  cluster_size=512 cluster_size=4k cluster_size=64k cluster_size=2M
  cluster_size=512,refcount_bits=64 cluster_size=512,refcount_bits=1 cluster_size=1k,refcount_bits=64
  compat=0.10 lazy_refcounts=on refcount_bits=64
  extended_l2=on extended_l2=on,cluster_size=16k extended_l2=on,cluster_size=2M
  preallocation=metadata preallocation=metadata,extended_l2=on preallocation=metadata,cluster_size=512
  preallocation=falloc preallocation=full
)
# qemu-img's measure does not know these two.
options_of_data_files=(
  data_file=target.data data_file=target.data,data_file_raw=on
)

# Full to the last byte; an end in the middle of a cluster and of a page.
head -c 9437184 /dev/urandom >full.raw
head -c 3000832 /dev/urandom >odd.raw
# A long disk with little in it, in pieces that begin and end anywhere.
truncate -s 300M thin.raw
RANDOM=31
for ((i = 0; i < 60; i++)); do
  dd if=/dev/urandom of=thin.raw bs=4k seek=$(((RANDOM * 32768 + RANDOM) % 76000)) count=$((RANDOM % 80 + 1)) \
    conv=notrunc status=none
done
# The same as a qcow2 image of small clusters, with zeros of all kinds.
qemu-img convert -f raw -O qcow2 -o cluster_size=512 odd.raw small.qcow2
qemu-io -f qcow2 -c 'write -z 100k 300k' -c 'write -z -u 1M 70k' -c 'discard 2M 33k' small.qcow2 >/dev/null
truncate -s 40M empty.raw

as_qemu_img_too=true
for options in "${options_of_images[@]}"; do
  for source in full odd thin empty; do exact "$source" "$source.raw" raw "$options"; done
  exact small.qcow2 small.qcow2 qcow2 "$options"
done
as_qemu_img_too=false
for options in "${options_of_data_files[@]}"; do
  for source in odd thin; do exact "$source" "$source.raw" raw "$options"; done
done

# A file system, which holds zeros as data: to the byte only for those who have them looked for.
mkdir tree
cp -r /usr/include/linux tree
dd if=/dev/zero of=tree/zeros bs=1M count=5 status=none
truncate -s 64M fs.raw
mke2fs -q -F -t ext4 -d tree fs.raw
dd if=/dev/zero of=fs.raw bs=1M seek=20 count=3 conv=notrunc status=none
for options in cluster_size=64k cluster_size=512 cluster_size=2M extended_l2=on preallocation=metadata; do
  exact 'a file system' fs.raw raw "$options" --detect-zeroes
done
[ "$(required fs.raw raw compat=1.1)" -gt "$(required fs.raw raw compat=1.1 --detect-zeroes)" ] ||
  fail 'the zeros made no difference'

# No source: what create makes.
for options in compat=1.1 cluster_size=512 preallocation=metadata extended_l2=on; do
  "$coimg" create -q -f qcow2 -o "$options" made.qcow2 5000001
  said=$("$coimg" measure --size 5000001 -O qcow2 -o "$options" | sed -n 's/^required size: //p')
  [ "$said" = "$(stat -c %s made.qcow2)" ] || fail "an empty disk, $options: measure says $said"
done
