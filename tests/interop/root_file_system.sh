#!/usr/bin/env bash
# A real one: a root file system of this machine as an ext4 image of 1.5 GiB, through both formats and back, fsck'd.
. "$(dirname "$0")/lib.sh"
command -v mke2fs >/dev/null && command -v e2fsck >/dev/null || { echo "skipped: no e2fsprogs"; exit 77; }

# Most of a GiB of this machine's files.
mkdir root
du -ak --max-depth=1 /etc /bin /sbin /usr/bin /usr/sbin /usr/share /usr/lib 2>/dev/null |
  awk -F'\t' '$1 < 200000 && $2 ~ "^/(usr/)?[a-z]+/." && (total += $1) < 900000 {print substr($2, 2)}' |
  tar -C / -cf - -T - 2>/dev/null | tar -C root -xf - --no-same-owner || true
mke2fs -q -t ext4 -d root disk.raw 1536M
rm -rf root
e2fsck -fn disk.raw >/dev/null 2>&1 || fail "the sample itself is not clean"

for options in '' -c '-c -o compression_type=zstd' '-o cluster_size=4k'; do
  next_engine
  # shellcheck disable=SC2086
  "$coimg" convert $options -f raw -O qcow2 disk.raw ours.qcow2
  qemu-img check -q ours.qcow2 || fail "$options: qemu-img check"
  "$coimg" check -q ours.qcow2 || fail "$options: check"
  qemu-img convert -f qcow2 -O raw ours.qcow2 back.raw
  cmp disk.raw back.raw || fail "$options: qemu-img reads other bytes"
  "$coimg" convert -f qcow2 -O raw ours.qcow2 back.raw
  cmp disk.raw back.raw || fail "$options: coimg reads other bytes"
  e2fsck -fn back.raw >/dev/null 2>&1 || fail "$options: e2fsck finds fault with the copy"
  rm -f ours.qcow2 back.raw
done
qemu-img convert -f raw -O qcow2 disk.raw theirs.qcow2
"$coimg" compare -q -f raw -F qcow2 disk.raw theirs.qcow2 || fail "compare with qemu-img's conversion"
"$coimg" convert -f qcow2 -O raw theirs.qcow2 back.raw
e2fsck -fn back.raw >/dev/null 2>&1 || fail "e2fsck on what qemu-img converted"
cmp disk.raw back.raw || fail "back from qemu-img's image"
echo "file system intact on all ways"
