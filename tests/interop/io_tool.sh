#!/usr/bin/env bash
# What our I/O tool writes, qemu-io reads, and back; the same commands make the same disk with both.
. "$(dirname "$0")/lib.sh"

mkdir bin
ln -s "$coimg" bin/qemu-io
ours=$PWD/bin/qemu-io

# random_commands SEED: changes of all kinds on a disk of 4 MiB, of any alignment, one a line.
random_commands() {
  RANDOM=$1
  for ((i = 0; i < 60; i++)); do
    local offset=$(((RANDOM * 32768 + RANDOM) % 4000000)) length=$((RANDOM * 5 % 150000 + 1)) byte=$((RANDOM % 255 + 1))
    case $((RANDOM % 8)) in
      0) echo "write -q -z $offset $length" ;;
      1) echo "write -q -z -u $offset $length" ;;
      2) echo "writev -q -P $byte $offset $((length / 2 + 1)) 1 512" ;;
      3) echo "aio_write -q -P $byte $offset $length" && echo aio_flush ;;
      4) echo "write -q -f -P $byte $offset $length" ;;
      5) echo flush ;;
      *) echo "write -q -P $byte $offset $length" ;;
    esac
  done
}

for seed in 1 2 3; do
  for options in cluster_size=65536 cluster_size=4096 extended_l2=on; do
    name="seed $seed, $options"
    random_commands "$seed" >commands
    for side in ours theirs; do
      rm -f "$side.qcow2"
      qemu-img create -q -f qcow2 -o "$options" "$side.qcow2" 4M
    done
    "$ours" -f qcow2 -t none ours.qcow2 <commands >ours.out 2>&1 || fail "$name: our tool failed: $(tail -1 ours.out)"
    qemu-io -f qcow2 theirs.qcow2 <commands >theirs.out 2>&1 || fail "$name: qemu-io failed"
    [ "$(content ours.qcow2 qcow2)" = "$(content theirs.qcow2 qcow2)" ] || fail "$name: not the same disk"
    sound "$name" ours.qcow2
  done
done

# Patterns across the programs, compressed and durable writes, reads of pieces.
qemu-img create -q -f qcow2 a.qcow2 2M
"$ours" -f qcow2 -c 'write -q -P 1 100 1000' -c 'write -q -c -P 2 64k 128k' -c 'write -q -f -P 3 1M 1' a.qcow2
qemu-io -f qcow2 -c 'read -q -P 1 100 1000' -c 'read -q -P 0 0 100' -c 'read -q -P 2 64k 128k' -c 'read -q -P 3 1M 1' a.qcow2 ||
  fail "qemu-io reads other bytes than our tool wrote"
qemu-io -f qcow2 -c 'write -q -P 4 100 1000' -c 'write -q -c -P 5 512k 64k' -c 'discard -q 64k 64k' a.qcow2
"$ours" -f qcow2 -c 'readv -q -P 4 100 300 700' -c 'read -q -P 5 512k 64k' -c 'read -q -P 0 64k 64k' -c 'read -q -P 2 128k 64k' a.qcow2 ||
  fail "our tool reads other bytes than qemu-io wrote"

# A snapshot of -s is gone afterwards, and copy-on-read leaves nothing to the backing file.
qemu-img create -q -f qcow2 -b a.qcow2 -F qcow2 over.qcow2
before=$(content over.qcow2 qcow2)
"$ours" -s -f qcow2 -c 'write -q -P 9 0 2M' -c 'read -q -P 9 0 2M' over.qcow2 || fail "-s does not show what was written"
[ "$(content over.qcow2 qcow2)" = "$before" ] || fail "-s has changed the image"
"$ours" -C -f qcow2 -c 'read -q 0 2M' over.qcow2
qemu-img rebase -u -f qcow2 -b '' over.qcow2
[ "$(content over.qcow2 qcow2)" = "$before" ] || fail "copy-on-read has not copied everything"
sound "copy-on-read" over.qcow2

# Where the tool is told to fail, the image stays sound: each event of a write once, with each kind of request.
failures=0
for event in l1_update l2_load l2_update l2_alloc_write write_aio refblock_load refblock_update_part cluster_alloc cow_read cow_write flush_to_disk pwritev; do
  qemu-img create -q -f qcow2 -o cluster_size=512,refcount_bits=64 b.qcow2 1M
  qemu-img create -q -f qcow2 -o cluster_size=512,refcount_bits=64 -b b.qcow2 -F qcow2 c.qcow2
  "$ours" -f qcow2 -c 'write -q -P 1 0 300k' b.qcow2
  "$ours" --image-opts -c 'write -q -P 2 100 100k' -c 'write -q -P 3 200000 1000' \
    "driver=qcow2,file.driver=blkdebug,file.image.filename=c.qcow2,file.inject-error.0.event=$event,file.inject-error.0.once=on" \
    >/dev/null 2>&1 || failures=$((failures + 1))
  # Leaks are allowed; damage is not.
  code=0
  qemu-img check -q -f qcow2 c.qcow2 2>/dev/null || code=$?
  [ "$code" -eq 0 ] || [ "$code" -eq 3 ] || fail "$event: a failure has damaged the image ($code)"
done
[ "$failures" -ge 8 ] || fail "only $failures of the events made a write fail"

# Both streams in one file keep their order.
"$ours" -f raw -c 'length' -c 'bogus' -c 'length' -c 'truncate -m foo 5' -c 'length' ours.qcow2 >both 2>&1 || true
sed -E 's/^[0-9.]+ [KM]iB$/SIZE/; s/^(command|qemu-io:).*/ERROR/' both | paste -sd' ' | grep -qx 'SIZE ERROR SIZE ERROR SIZE' ||
  fail "the order of the streams is not kept: $(cat both)"

# Breakpoints end in order when nobody is left to resume.
timeout 20 "$ours" -f qcow2 -c 'break write_aio A' -c 'aio_write 0 512' -c aio_flush blkdebug::a.qcow2 >stuck 2>&1 && fail "a stuck aio_flush succeeds"
grep -q 'all requests are suspended' stuck || fail "a stuck aio_flush is not told: $(cat stuck)"
grep -q 'wrote 512/512' stuck || fail "the suspended request is lost"
timeout 20 "$ours" -f qcow2 -c 'break write_aio A' -c 'write -q 0 512' blkdebug::a.qcow2 >stuck 2>&1 && fail "a stuck write succeeds"
timeout 20 "$ours" -f qcow2 -c 'wait_break A' blkdebug::a.qcow2 >stuck 2>&1 && fail "waiting for nobody succeeds"
timeout 20 "$ours" -f qcow2 -c 'break write_aio A' -c 'aio_write 0 512' -c quit blkdebug::a.qcow2 >stuck 2>&1 && fail "a stuck end succeeds"
sound "after breakpoints" a.qcow2
