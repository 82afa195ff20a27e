# Differences all over the disk; several reads are in flight, but the first one counts, every time.
truncate -s 24M a.raw
yes | head -c 24M >b.raw
dd if=b.raw of=a.raw bs=1M count=24 conv=notrunc status=none
for at in 23000000 9000000 3000001; do
  printf x | dd of=b.raw bs=1 seek=$at conv=notrunc status=none
  for i in 1 2 3; do qemu-img compare a.raw b.raw; done
done
