#!/usr/bin/env bash
# A real one: a file system on add-cow over a backing file that qemu-img made, changed, committed, rebased and completed,
# and clean in e2fsck's eyes every time. What ends in a raw file or a qcow2 image is read by qemu-img.
. "$(dirname "$0")/lib.sh"
for tool in mke2fs e2fsck debugfs; do
  command -v $tool >/dev/null || { echo "skipped: no e2fsprogs"; exit 77; }
done

mkdir root
cp -a --no-preserve=ownership /etc root/ 2>/dev/null || true
head -c 20M /dev/urandom >root/data
mke2fs -q -t ext4 -d root base.raw 96M
rm -rf root
e2fsck -fn base.raw >/dev/null 2>&1 || fail "the sample itself is not clean"
cp --sparse=always base.raw changed.raw
head -c 7M /dev/urandom >new
debugfs -w -R 'rm data' changed.raw >/dev/null 2>&1
debugfs -w -R 'write new new' changed.raw >/dev/null 2>&1
e2fsck -fy changed.raw >/dev/null 2>&1 || true
e2fsck -fn changed.raw >/dev/null 2>&1 || fail "the changed sample is not clean"
qemu-img convert -f raw -O qcow2 base.raw base.qcow2
digest=$(digest <changed.raw)
base_digest=$(digest <base.raw)

# Where the changed file system differs, as commands of the I/O tool: runs of blocks, with a sector on each side, so that
# few of them begin or end where clusters do.
mkdir pieces
{ cmp -l base.raw changed.raw || true; } | awk '
  function flush() { if (first >= 0) print first * 4096 - (first > 0 ? 512 : 0), (last + 1) * 4096 + 512 }
  BEGIN { first = -1; size = 96 * 1048576 }
  { block = int(($1 - 1) / 4096); if (block != last || first < 0) { if (first < 0 || block != last + 1) { flush(); first = block } last = block } }
  END { flush() }' | while read -r begin end; do
  [ "$end" -le $((96 << 20)) ] || end=$((96 << 20))
  tail -c +$((begin + 1)) changed.raw | head -c $((end - begin)) >pieces/$begin || true
  echo "write -q -s pieces/$begin $begin $((end - begin))"
done >commands
[ "$(wc -l <commands)" -gt 10 ] || fail "the sample has hardly changed"

# clean NAME IMAGE: the file system of an add-cow image.
clean() {
  next_engine
  "$coimg" convert -f add-cow -O raw "$2" seen.raw
  [ "$(digest <seen.raw)" = "$digest" ] || fail "$1: other bytes"
  e2fsck -fn seen.raw >/dev/null 2>&1 || fail "$1: e2fsck finds fault"
  "$coimg" check -q -f add-cow "$2" || fail "$1: check finds fault"
}

for options in cluster_size=4k cluster_size=64k cluster_size=2M cluster_size=64k,image_fmt=qcow2; do
  rm -rf d && mkdir d
  "$coimg" create -q -f add-cow -o "image_file=disk.img,$options" -b ../base.qcow2 -F qcow2 d/disk.add-cow
  [ "$(our_content d/disk.add-cow add-cow)" = "$base_digest" ] || fail "$options: a new image shows other bytes"
  "$coimg" io -f add-cow -t writeback d/disk.add-cow <commands >io.log || fail "$options: the I/O tool: $(cat io.log)"
  clean "$options, written" d/disk.add-cow
  "$coimg" rebase -b '' d/disk.add-cow
  clean "$options, completed" d/disk.add-cow
  format=raw
  case $options in *qcow2) format=qcow2 ;; esac
  qemu-img compare -q -f raw -F $format changed.raw d/disk.img || fail "$options: the image file alone is another disk"
done

# What is read stays in the image: after all has been read the backing file can be taken away.
rm -rf d && mkdir d
"$coimg" create -q -f add-cow -b ../base.qcow2 -F qcow2 d/disk.add-cow
"$coimg" io -f add-cow -t writeback d/disk.add-cow <commands >/dev/null
"$coimg" io -f add-cow -t writeback -C -c 'read -q 0 96M' d/disk.add-cow >/dev/null
"$coimg" rebase -u -b '' d/disk.add-cow
clean "copied on read" d/disk.add-cow

# Only what an overlay has itself is stored; the rest stays in the backing file. Then it is committed into that.
qemu-img create -q -f qcow2 -b base.qcow2 -F qcow2 top.qcow2
qemu-img resize -q top.qcow2 100M
qemu-io -f qcow2 -c 'write -P 7 90M 100k' -c 'write -P 8 1M 200k' -c 'write -z 3M 64k' -c 'write -P 9 99M 1M' \
  top.qcow2 >/dev/null
top_digest=$(content top.qcow2 qcow2)
for cluster_size in 4k 64k 2M; do
  rm -f t.* own.qcow2
  qemu-img convert -f qcow2 -O qcow2 base.qcow2 own.qcow2
  "$coimg" convert -O add-cow -o image_file=t.img,cluster_size=$cluster_size -B own.qcow2 -F qcow2 top.qcow2 t.add-cow
  same_content "an overlay as add-cow" t.add-cow add-cow "$top_digest"
  [ "$(stat -c %b t.img)" -lt 20000 ] || fail "shared clusters were copied"
  "$coimg" rebase -b base.raw -F raw t.add-cow
  same_content "on another backing file" t.add-cow add-cow "$top_digest"
  "$coimg" rebase -b own.qcow2 -F qcow2 t.add-cow
  "$coimg" commit -q t.add-cow
  [ "$(content own.qcow2 qcow2)" = "$top_digest" ] || fail "committed: other bytes"
  qemu-img check -q own.qcow2 || fail "committed: qemu-img check"
  [ "$(stat -c %b t.img)" -eq 0 ] || fail "committed: the image file is not empty"
  same_content "committed, seen from above" t.add-cow add-cow "$top_digest"
  "$coimg" resize -q t.add-cow 120M
  "$coimg" resize -q --shrink t.add-cow 100M
  same_content "resized" t.add-cow add-cow "$top_digest"
  "$coimg" check -q t.add-cow || fail "resized: check finds fault"
done

# An add-cow image as the backing file of a qcow2 image, and through all conversions.
"$coimg" create -q -f add-cow -b base.qcow2 middle.add-cow
"$coimg" create -q -f qcow2 -b middle.add-cow -F add-cow over.qcow2
same_content "an overlay of an add-cow image" over.qcow2 qcow2 "$base_digest"
"$coimg" compare -q -f add-cow -F qcow2 middle.add-cow over.qcow2 || fail "compare"
echo "file system intact on all ways"
