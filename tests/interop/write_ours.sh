#!/usr/bin/env bash
# What coimg creates and converts, qemu-img reads and checks, and qemu-io writes on.
. "$(dirname "$0")/lib.sh"

qemu-img create -q -f raw plain.raw 8M
scribble plain.raw raw 21
digest=$(digest <plain.raw)

accepted() {
  local name=$1 image=$2
  [ "$(content "$image" qcow2)" = "$digest" ] || fail "$name: qemu-img reads other bytes"
  sound "$name" "$image"
  qemu-io -f qcow2 -c 'write -P 9 1000000 300000' -c 'write -z 3000000 100000' -c 'discard 0 65536' "$image" >/dev/null
  qemu-img check -q "$image" || fail "$name: damaged after qemu-io wrote to it"
  same_content "$name, written on" "$image" qcow2 "$(content "$image" qcow2)"
}

for bits in 9 11 12 16 17 21; do
  for compat in 0.10 1.1; do
    "$coimg" convert -f raw -O qcow2 -o "cluster_size=$((1 << bits)),compat=$compat" plain.raw a.qcow2
    accepted "cluster_size=2^$bits compat=$compat" a.qcow2
    "$coimg" convert -c -f raw -O qcow2 -o "cluster_size=$((1 << bits)),compat=$compat" plain.raw a.qcow2
    accepted "compressed cluster_size=2^$bits compat=$compat" a.qcow2
  done
done
for width in 1 2 4 8 32 64; do
  "$coimg" convert -f raw -O qcow2 -o refcount_bits=$width plain.raw a.qcow2
  accepted "refcount_bits=$width" a.qcow2
  "$coimg" convert -c -f raw -O qcow2 -o refcount_bits=$width plain.raw a.qcow2
  accepted "compressed refcount_bits=$width" a.qcow2
done
for size in 4096 65536 2097152; do
  "$coimg" convert -c -f raw -O qcow2 -o compression_type=zstd,cluster_size=$size plain.raw a.qcow2
  accepted "zstd $size" a.qcow2
done
for size in 16k 64k 2M; do
  "$coimg" convert -f raw -O qcow2 -o "extended_l2=on,cluster_size=$size" plain.raw a.qcow2
  accepted "extended_l2 $size" a.qcow2
  "$coimg" convert -c -f raw -O qcow2 -o "extended_l2=on,cluster_size=$size" plain.raw a.qcow2
  accepted "compressed extended_l2 $size" a.qcow2
done
"$coimg" convert -S 0 -f raw -O qcow2 plain.raw a.qcow2
accepted "-S 0" a.qcow2
"$coimg" convert -W -m 16 -f raw -O qcow2 plain.raw a.qcow2
accepted "-W" a.qcow2
"$coimg" convert -t none -T none -f raw -O qcow2 plain.raw a.qcow2
accepted "-t none" a.qcow2

# Into an existing image whose old contents must go.
for options in extended_l2=off extended_l2=on; do
  qemu-img create -q -f qcow2 -o "$options" a.qcow2 8M
  scribble a.qcow2 qcow2 22
  "$coimg" convert -n -f raw -O qcow2 plain.raw a.qcow2
  accepted "-n $options" a.qcow2
done
qemu-img create -q -f raw b.raw 8M
scribble b.raw raw 23
"$coimg" convert -n -f raw -O raw plain.raw b.raw
cmp plain.raw b.raw || fail "-n raw"

# An overlay: only what the source's top layer holds.
qemu-img create -q -f raw base.raw 8M
scribble base.raw raw 24
qemu-img create -q -f qcow2 -b base.raw -F raw over.qcow2
scribble over.qcow2 qcow2 25
digest=$(content over.qcow2 qcow2)
"$coimg" convert -O qcow2 -B base.raw -F raw over.qcow2 copy.qcow2
accepted "-B" copy.qcow2
"$coimg" convert -O qcow2 -c -B base.raw -F raw over.qcow2 copy.qcow2
accepted "-c -B" copy.qcow2
"$coimg" convert -O qcow2 -o cluster_size=2M -B base.raw -F raw over.qcow2 copy.qcow2
accepted "-B, larger clusters" copy.qcow2

# New images are laid out as qemu-img lays them out.
for options in '' cluster_size=512 cluster_size=4096 cluster_size=2097152 compat=0.10 refcount_bits=1 refcount_bits=64 \
  compression_type=zstd lazy_refcounts=on 'backing_file=base.raw,backing_fmt=raw' \
  'cluster_size=512,backing_file=base.raw,backing_fmt=raw' 'compat=0.10,backing_file=base.raw,backing_fmt=raw'; do
  for size in 0 1000001 8M 1G 70G; do
    qemu-img create -q -f qcow2 ${options:+-o "$options"} theirs.qcow2 $size
    "$coimg" create -q -f qcow2 ${options:+-o "$options"} ours.qcow2 $size
    cmp -s theirs.qcow2 ours.qcow2 || fail "create -o '$options' $size differs from qemu-img's"
  done
done

# Odd sizes, several sources.
head -c 1000001 plain.raw >odd.raw
"$coimg" convert -f raw -O qcow2 odd.raw plain.raw a.qcow2
qemu-img convert -f raw -O raw odd.raw plain.raw theirs.raw
digest=$(digest <theirs.raw)
accepted "two sources" a.qcow2
"$coimg" convert -c -f raw -O qcow2 odd.raw plain.raw a.qcow2
accepted "two sources, compressed" a.qcow2

# The same bytes for any number of requests in flight.
"$coimg" convert -m 1 -f raw -O qcow2 plain.raw one.qcow2
"$coimg" convert -c -m 1 -f raw -O qcow2 plain.raw one-c.qcow2
for m in 2 8 16; do
  "$coimg" convert -m $m -f raw -O qcow2 plain.raw many.qcow2
  cmp one.qcow2 many.qcow2 || fail "-m $m gives other bytes than -m 1"
  "$coimg" convert -c -m $m -f raw -O qcow2 plain.raw many.qcow2
  cmp one-c.qcow2 many.qcow2 || fail "-c -m $m gives other bytes than -m 1"
done
echo "all images accepted"
