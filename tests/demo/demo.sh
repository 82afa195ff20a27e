#!/usr/bin/env bash
# The main job on a real file system: raw -> qcow2 -> compressed qcow2 -> raw, checked and compared on the way.
set -euo pipefail
coimg=$(readlink -f "${1:?usage: demo.sh COIMG}")
PATH=$PATH:/sbin:/usr/sbin
work=$(mktemp -d "${TMPDIR:-/var/tmp}/coimg-demo.XXXXXX")
trap 'rm -rf "$work"' EXIT
cd "$work"

step() { printf '\n\033[1m%s\033[0m\n' "$*"; }
run() {
  printf '$ %s\n' "coimg $*"
  "$coimg" "$@"
}

step "A file system of 512 MiB, made of this machine's documents and programs"
mkdir files
for source in /usr/share/doc /usr/share/perl /usr/lib/git-core /usr/share/cmake* /usr/bin; do
  [ -d "$source" ] || continue
  [ "$(du -sm files | cut -f1)" -lt 250 ] || break
  cp -a --no-preserve=ownership "$source" files/ 2>/dev/null || true
done
while [ "$(du -sm files | cut -f1)" -gt 380 ]; do # a machine with large directories: keep to what fits
  largest=$(du -s files/* | sort -rn | head -1 | cut -f2)
  rm -rf "$largest"
done
mke2fs -q -t ext4 -d files disk.raw 512M 2>/dev/null
printf 'disk.raw: %s files, %s MiB of data\n' "$(find files -type f | wc -l)" "$(du -sm disk.raw | cut -f1)"
rm -rf files

step "Raw to qcow2"
run convert -p -f raw -O qcow2 disk.raw disk.qcow2
run check disk.qcow2
run info disk.qcow2

step "qcow2 to compressed qcow2"
run convert -p -c -O qcow2 disk.qcow2 small.qcow2
run check small.qcow2
run compare disk.raw small.qcow2

step "And back to raw"
run convert -p -O raw small.qcow2 back.raw
run compare -f raw -F raw disk.raw back.raw
cmp disk.raw back.raw && echo "back.raw is disk.raw, byte for byte."
e2fsck -fn back.raw
printf '\n'
printf '%-14s %s\n' disk.raw "$(du -m disk.raw | cut -f1) MiB" disk.qcow2 "$(du -m disk.qcow2 | cut -f1) MiB" \
  small.qcow2 "$(du -m small.qcow2 | cut -f1) MiB"

step "The same with your own image"
cat <<'TEXT'
  ./dev run convert -p -O qcow2 my.raw my.qcow2     convert (the source's format is detected)
  ./dev run convert -p -c -O qcow2 my.raw my.qcow2  the same, compressed
  ./dev run check my.qcow2                          is it sound?
  ./dev run compare my.raw my.qcow2                 do both hold the same?
  ./dev run --help                                  everything else
The program itself is build/release/coimg.
TEXT
