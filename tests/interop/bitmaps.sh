#!/usr/bin/env bash
# Dirty bitmaps: made, filled, changed and copied by one program or the other at random. Both find the image sound and
# list the same bitmaps, and what each bitmap has, as a server of QEMU's shows it, is what it should have.
. "$(dirname "$0")/lib.sh"
command -v qemu-nbd >/dev/null || { echo "skipped: no qemu-nbd"; exit 77; }

RANDOM=17
programs=(qemu-img "$coimg")
either() { "${programs[RANDOM % 2]}" "$@"; }

# dirty IMAGE BITMAP: its dirty ranges, a line each: start and length.
dirty() {
  rm -f nbd.sock
  timeout 20 qemu-nbd -r -f qcow2 -B "$2" -k "$work/nbd.sock" "$1" &
  local server=$! tries
  for ((tries = 0; tries < 100; tries++)); do [ -S nbd.sock ] && break; sleep 0.05; done
  timeout 20 qemu-img map --output=json --image-opts \
    "driver=nbd,server.type=unix,server.path=$work/nbd.sock,x-dirty-bitmap=qemu:dirty-bitmap:$2" |
    sed -n 's/.*"start": \([0-9]*\), "length": \([0-9]*\),.*"data": false.*/\1 \2/p'
  wait "$server"
}
expect_dirty() {
  local seen
  seen=$(dirty "$2" "$3")
  [ "$seen" = "$4" ] || fail "$1: bitmap $3 of $2 has
$seen
instead of
$4"
}
listing() { "$1" info --output=json "$2" | sed '/actual-size/d'; }
same_lists() {
  [ "$(listing qemu-img "$2")" = "$(listing "$coimg" "$2")" ] || fail "$1: the lists of bitmaps differ"
}
write_at() { qemu-io -f qcow2 -c "write -P 3 $2 $3" "$1" >/dev/null; }

for cluster in 512 4k 64k 2M; do
  # What one program has made and filled, the other continues.
  qemu-img create -q -f qcow2 -o cluster_size=$cluster image.qcow2 16M
  either bitmap --add -g 64k image.qcow2 first
  write_at image.qcow2 128k 1k
  either bitmap --add -g 4k --disable image.qcow2 second
  either bitmap --add -g 512 image.qcow2 third
  write_at image.qcow2 1M 200k
  same_lists "$cluster" image.qcow2
  sound "$cluster" image.qcow2
  for program in "${programs[@]}"; do
    cp image.qcow2 copy.qcow2
    "$program" bitmap --merge first --enable copy.qcow2 second
    "$program" bitmap --clear --disable copy.qcow2 first
    "$program" bitmap --add -g 1M --merge third copy.qcow2 fourth
    sound "$cluster" copy.qcow2
    same_lists "$cluster" copy.qcow2
    expect_dirty "$cluster $program" copy.qcow2 first ""
    expect_dirty "$cluster $program" copy.qcow2 second "131072 65536
1048576 262144"
    expect_dirty "$cluster $program" copy.qcow2 third "1048576 204800"
    expect_dirty "$cluster $program" copy.qcow2 fourth "1048576 1048576"
    "$program" bitmap --remove copy.qcow2 first
    "$program" bitmap --remove copy.qcow2 third
    sound "$cluster $program, removed" copy.qcow2
  done

  # What coimg writes is recorded. Without its zeros the source has two places with data.
  qemu-img create -q -f raw source.raw 16M
  qemu-io -f raw -c 'write -P 9 300k 4k' -c 'write -P 9 12M 64k' source.raw >/dev/null
  either bitmap --clear image.qcow2 first
  "$coimg" convert -n --target-is-zero -O qcow2 source.raw image.qcow2
  written="262144 65536
12582912 65536"
  [ $cluster = 2M ] && written="0 2097152
12582912 2097152" # a cluster is written as a whole
  expect_dirty "$cluster: written by coimg" image.qcow2 first "$written"
  expect_dirty "$cluster: written by coimg" image.qcow2 second ""
  sound "$cluster: written by coimg" image.qcow2
  "$coimg" convert -n -O qcow2 source.raw image.qcow2
  expect_dirty "$cluster: all written by coimg" image.qcow2 first "0 16777216"
  expect_dirty "$cluster: all written by coimg" image.qcow2 third "0 16777216"
  sound "$cluster: all written by coimg" image.qcow2

  # What of a bitmap is not in the file any more is dirty after a repair. The last bitmap's entry is found by its name.
  cp image.qcow2 cut.qcow2
  "$coimg" bitmap --add -g 64k cut.qcow2 lostlost
  name=$(grep -abo lostlost cut.qcow2 | tail -1)
  entry=$((${name%%:*} - 24))
  cp cut.qcow2 lost.qcow2
  printf '\0\0\0\x40' | dd of=lost.qcow2 bs=1 seek=$entry conv=notrunc status=none # its table
  "$coimg" check -q -r all lost.qcow2 >/dev/null 2>&1 || fail "$cluster: a lost bitmap table is not repaired"
  sound "$cluster: repaired bitmap table" lost.qcow2
  expect_dirty "$cluster: repaired bitmap table" lost.qcow2 lostlost "0 16777216"
  table=$((16#$(od -An -tx1 -j $entry -N 8 cut.qcow2 | tr -d ' \n')))
  printf '\0\0\0\x40' | dd of=cut.qcow2 bs=1 seek=$table conv=notrunc status=none
  "$coimg" check -q -r all cut.qcow2 >/dev/null 2>&1 || fail "$cluster: a lost part of a bitmap is not repaired"
  sound "$cluster: repaired bitmap" cut.qcow2
  expect_dirty "$cluster: repaired bitmap" cut.qcow2 lostlost "0 16777216"

  # Copies of images with their bitmaps, also into other cluster sizes.
  "$coimg" convert --bitmaps -O qcow2 -o cluster_size=32k copy.qcow2 ours.qcow2
  qemu-img convert --bitmaps -O qcow2 -o cluster_size=32k copy.qcow2 theirs.qcow2
  for image in ours.qcow2 theirs.qcow2; do
    expect_dirty "$cluster: copied" $image second "131072 65536
1048576 262144"
    expect_dirty "$cluster: copied" $image fourth "1048576 1048576"
    sound "$cluster: copied" $image
  done
  [ "$(listing "$coimg" ours.qcow2 | sed s/ours/theirs/)" = "$(listing qemu-img theirs.qcow2)" ] ||
    fail "$cluster: the bitmaps of the copies differ"

  # From another image.
  either bitmap --merge second -b copy.qcow2 -F qcow2 image.qcow2 second
  expect_dirty "$cluster: merged from another image" image.qcow2 second "131072 65536
1048576 262144"
done

# What QEMU left in use is inconsistent for both.
qemu-img create -q -f qcow2 image.qcow2 4M
"$coimg" bitmap --add image.qcow2 lost
qemu-io -f qcow2 -c 'write 0 4k' -c 'sleep 20000' image.qcow2 >/dev/null 2>&1 &
writer=$!
sleep 1
{ kill -KILL $writer; wait $writer || true; } 2>/dev/null # it has its locks until it is gone
same_lists "in use" image.qcow2
"$coimg" bitmap --add image.qcow2 kept
write_at image.qcow2 1M 1k
same_lists "in use, and another" image.qcow2
expect_dirty "beside one in use" image.qcow2 kept "1048576 65536"
"$coimg" bitmap --remove image.qcow2 lost
sound "removed one in use" image.qcow2
# Neither records a change of the size, also not in a granule that is cut.
"$coimg" bitmap --add -g 1M image.qcow2 coarse
write_at image.qcow2 0 1k
for program in "${programs[@]}"; do
  cp image.qcow2 copy.qcow2
  for size in 2080k 3M 1100k; do
    "$program" resize -q --shrink copy.qcow2 $size
    expect_dirty "resized to $size by $program" copy.qcow2 coarse "0 1048576"
    expect_dirty "resized to $size by $program" copy.qcow2 kept "0 65536
1048576 65536"
    sound "resized to $size by $program" copy.qcow2
  done
done
qemu-img resize -q image.qcow2 8M
expect_dirty "resized by qemu-img" image.qcow2 kept "0 65536
1048576 65536"
echo "bitmaps are the same for both"
