#!/usr/bin/env bash
# measure as coimg: to the byte the size of the file that convert makes. As qemu-img: its figures.
. "$(dirname "$0")/lib.sh"
as_qemu_img() { COIMG_COMPAT=qemu-img "$coimg" "$@"; }

# required IMAGE FORMAT OPTIONS [ARGUMENT...]: what measure says.
required() {
  local image=$1 format=$2 options=$3
  shift 3
  "$coimg" measure "$@" -f "$format" -O qcow2 -o "$options" "$image" | figure required
}
# figure NAME: of what measure says.
figure() { sed -n "s/^$1 size: //p"; }

# made IMAGE FORMAT OPTIONS [ARGUMENT...]: how long convert's file is, with its data file.
made() {
  local image=$1 format=$2 options=$3 bytes
  shift 3
  rm -f target.qcow2 target.data
  "$coimg" convert "$@" -f "$format" -O qcow2 -o "$options" "$image" target.qcow2
  bytes=$(stat -c %s target.qcow2)
  [ ! -e target.data ] || bytes=$((bytes + $(stat -c %s target.data)))
  echo "$bytes"
}

# same_as_theirs NAME IMAGE FORMAT OPTIONS: as qemu-img, its figures.
same_as_theirs() {
  [ "$(as_qemu_img measure -f "$3" -O qcow2 -o "$4" "$2")" = "$(qemu-img measure -f "$3" -O qcow2 -o "$4" "$2")" ] ||
    fail "$1, $4: as qemu-img, other figures than qemu-img"
}

# exact NAME IMAGE FORMAT OPTIONS [ARGUMENT...]: convert's file is as long as measure says, and sound.
exact() {
  local name=$1 image=$2 format=$3 options=$4 said made
  shift 4
  next_engine
  said=$(required "$image" "$format" "$options" "$@")
  made=$(made "$image" "$format" "$options")
  [ "$said" = "$made" ] || fail "$name, $options: measure says $said bytes, convert makes $made"
  [ "$as_qemu_img_too" = false ] || same_as_theirs "$name" "$image" "$format" "$options"
}

# exact_when_full SIZE OPTIONS: the image of a disk full of data is as long as measure says of it, with that data and
# with its size alone.
exact_when_full() {
  local size=$1 options=$2 said made
  next_engine
  head -c "$size" data.raw >full.tmp
  made=$(made full.tmp raw "$options")
  said=$("$coimg" measure -f raw -O qcow2 -o "$options" full.tmp)
  [ "$(figure required <<<"$said") $(figure 'fully allocated' <<<"$said")" = "$made $made" ] ||
    fail "a full disk of $size bytes, $options: convert makes $made, measure says $said"
  said=$("$coimg" measure --size "$size" -O qcow2 -o "$options" | figure 'fully allocated')
  [ "$said" = "$made" ] || fail "a full disk of $size bytes, $options: convert makes $made, measure --size says $said"
}

# exact_with_bitmaps IMAGE OPTIONS: so is that of a copy with the bitmaps that can be copied.
exact_with_bitmaps() {
  local image=$1 options=$2 said made
  next_engine
  said=$("$coimg" measure -f qcow2 -O qcow2 -o "$options" "$image")
  made=$(made "$image" qcow2 "$options" --bitmaps --skip-broken-bitmaps 2>/dev/null)
  [ $(($(figure required <<<"$said") + $(figure bitmaps <<<"$said"))) = "$made" ] ||
    fail "$image with bitmaps, $options: convert makes $made, measure says $said"
  [ "$as_qemu_img_too" = false ] || same_as_theirs "$image" "$image" qcow2 "$options"
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

# Disks full of data, around the sizes where the refcount table grows: the first time at 2 MiB with 512-byte clusters
# and refcounts of 64 bits, at 8 MiB with 16 bits, at 64 MiB with clusters of a KiB.
head -c 70M /dev/urandom >data.raw
for options in "${options_of_images[@]}" "${options_of_data_files[@]}" data_file=target.data,cluster_size=512; do
  for size in 1 511 4097 3000832 8388608; do exact_when_full $size "$options"; done
done
for size in 1900000 1950208 2000896 7800320 7850000 7900160 7950336 12000001; do
  for options in cluster_size=512 cluster_size=512,refcount_bits=64 cluster_size=512,compat=0.10; do
    exact_when_full $size "$options"
  done
done
for size in 65000001 66000384 67108864; do
  for options in cluster_size=512 cluster_size=1k cluster_size=1k,refcount_bits=64 cluster_size=4k; do
    exact_when_full $size "$options"
  done
done

# A disk with bitmaps of all kinds: full, empty, with holes, disabled, merged; one of a long name.
qemu-img create -q -f qcow2 marked.qcow2 40M
for granularity in 512 4k 64k 2M; do qemu-img bitmap --add -g $granularity marked.qcow2 full-$granularity; done
qemu-io -f qcow2 -c 'write -z 0 40M' -c 'write 3M 200k' marked.qcow2 >/dev/null
qemu-img bitmap --add -g 512 --disable marked.qcow2 empty
"$coimg" bitmap --add -g 4k marked.qcow2 "$(printf 'n%.0s' {1..1000})"
qemu-io -f qcow2 -c 'write -z 0 20M' -c 'write -z 20481k 15M' marked.qcow2 >/dev/null
qemu-img bitmap --disable marked.qcow2 full-4k
"$coimg" bitmap --add --merge full-64k -g 512 marked.qcow2 merged
# So many bits that they are not written all at once, with some set all over.
qemu-img create -q -f qcow2 -o cluster_size=1k wide.qcow2 8G
qemu-img bitmap --add -g 512 wide.qcow2 fine
qemu-img bitmap --add -g 64k wide.qcow2 coarse
for ((i = 0; i < 4096; i++)); do echo "write -z $((i * 2048 + RANDOM % 1024))k 1k"; done |
  qemu-io -t unsafe -f qcow2 wide.qcow2 >/dev/null
qemu-img bitmap --add -g 1k wide.qcow2 some
for ((i = 0; i < 300; i++)); do echo "write $((RANDOM % 1000 * 8192 + RANDOM % 8192))k 1k"; done |
  qemu-io -t unsafe -f qcow2 wide.qcow2 >/dev/null
# Two that nobody closed, which are inconsistent, and one that is not.
qemu-img create -q -f qcow2 left.qcow2 5000192
qemu-img bitmap --add left.qcow2 recording
qemu-img bitmap --add -g 512 --disable left.qcow2 disabled
(qemu-io -f qcow2 -c 'write 1M 64k' -c abort left.qcow2 || true) >/dev/null 2>&1
[ "$("$coimg" measure -f qcow2 -O qcow2 left.qcow2 | figure bitmaps)" = 0 ] || fail 'an inconsistent bitmap counts'
"$coimg" bitmap --add -g 512 left.qcow2 kept

for options in "${options_of_images[@]}" "${options_of_data_files[@]}"; do
  case $options in
    compat=0.10) continue ;;
    data_file*) as_qemu_img_too=false ;;
    *) as_qemu_img_too=true ;;
  esac
  for source in marked left; do exact_with_bitmaps "$source.qcow2" "$options"; done
done
for options in cluster_size=512 cluster_size=512,refcount_bits=64 cluster_size=4k cluster_size=64k; do
  exact_with_bitmaps wide.qcow2 $options
done
exact_with_bitmaps small.qcow2 cluster_size=512

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
  said=$("$coimg" measure --size 5000001 -O qcow2 -o "$options" | figure required)
  [ "$said" = "$(stat -c %s made.qcow2)" ] || fail "an empty disk, $options: measure says $said"
done
