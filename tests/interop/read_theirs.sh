#!/usr/bin/env bash
# What qemu-img and qemu-io write, coimg reads, checks and compares.
. "$(dirname "$0")/lib.sh"

one() {
  local name=$1 options=$2
  qemu-img create -q -f qcow2 ${options:+-o "$options"} a.qcow2 8M
  scribble a.qcow2 qcow2 "$seed"
  same_content "$name" a.qcow2 qcow2 "$(content a.qcow2 qcow2)"
  sound "$name" a.qcow2
  qemu-img convert -f qcow2 -O raw a.qcow2 a.raw
  "$coimg" compare -q -f qcow2 -F raw a.qcow2 a.raw || fail "$name: compare"
  [ "$("$coimg" map --output=json a.qcow2)" = "$(qemu-img map --output=json a.qcow2)" ] || fail "$name: map"
  [ "$("$coimg" check --output=json a.qcow2)" = "$(qemu-img check --output=json a.qcow2)" ] || fail "$name: check counters"
  seed=$((seed + 1))
}

seed=1
for bits in 9 10 12 14 16 18 21; do
  for compat in 0.10 1.1; do
    one "cluster_size=2^$bits compat=$compat" "cluster_size=$((1 << bits)),compat=$compat"
  done
done
for width in 1 2 4 8 32 64; do one "refcount_bits=$width" "refcount_bits=$width"; done
for size in 16k 64k 2M; do one "extended_l2 $size" "extended_l2=on,cluster_size=$size"; done
one lazy_refcounts lazy_refcounts=on
one prealloc preallocation=metadata

# Compressed, both types, then partly overwritten.
qemu-img create -q -f raw plain.raw 8M
scribble plain.raw raw 77
for type in zlib zstd; do
  for size in 512 4096 65536 2097152; do
    qemu-img convert -c -f raw -O qcow2 -o "compression_type=$type,cluster_size=$size" plain.raw c.qcow2
    "$coimg" compare -q -f raw -F qcow2 plain.raw c.qcow2 || fail "compressed $type $size"
    sound "compressed $type $size" c.qcow2
    scribble c.qcow2 qcow2 78
    same_content "compressed $type $size, overwritten" c.qcow2 qcow2 "$(content c.qcow2 qcow2)"
    sound "compressed $type $size, overwritten" c.qcow2
  done
done

# A chain of different sizes and cluster sizes.
qemu-img create -q -f raw base.raw 6M
scribble base.raw raw 5 2>/dev/null || true
qemu-img create -q -f qcow2 -o cluster_size=4096 -b base.raw -F raw mid.qcow2 7M
scribble mid.qcow2 qcow2 6 2>/dev/null || true
qemu-img create -q -f qcow2 -o cluster_size=1048576 -b mid.qcow2 -F qcow2 top.qcow2 8M
scribble top.qcow2 qcow2 7
qemu-img create -q -f qcow2 -o extended_l2=on -b top.qcow2 -F qcow2 fine.qcow2 8M
scribble fine.qcow2 qcow2 8
same_content "chain with subclusters" fine.qcow2 qcow2 "$(content fine.qcow2 qcow2)"
sound "chain with subclusters" fine.qcow2
same_content chain top.qcow2 qcow2 "$(content top.qcow2 qcow2)"
sound chain top.qcow2
[ "$("$coimg" map --output=json top.qcow2)" = "$(qemu-img map --output=json top.qcow2)" ] || fail "chain: map"
[ "$("$coimg" map top.qcow2)" = "$(qemu-img map top.qcow2)" ] || fail "chain: map, human"

# Images with internal snapshots are read and checked.
qemu-img create -q -f qcow2 s.qcow2 8M
scribble s.qcow2 qcow2 9
qemu-img snapshot -c one s.qcow2
scribble s.qcow2 qcow2 10
same_content snapshots s.qcow2 qcow2 "$(content s.qcow2 qcow2)"
sound snapshots s.qcow2
echo "all images read alike"
