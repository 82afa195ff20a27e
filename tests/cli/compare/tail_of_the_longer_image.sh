truncate -s 1M a.raw
truncate -s 2M b.raw
qemu-img compare a.raw b.raw
echo "exit code $?"
printf x | dd of=b.raw bs=1 seek=2097151 conv=notrunc status=none
qemu-img compare b.raw a.raw
echo "exit code $?"
