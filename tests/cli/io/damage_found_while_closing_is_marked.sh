# coimg only
coimg create -q -f qcow2 -o cluster_size=4k disk.qcow2 1M
coimg bitmap --add disk.qcow2 b
coimg io -c 'write 0 4k' disk.qcow2 >io.out
printf '\0\0' | dd of=disk.qcow2 bs=1 seek=$((0x2000 + 6)) conv=notrunc status=none # the L1 table counts as free
coimg io -c 'write 0 4k' disk.qcow2 >io.out
echo "exit code $?"
od -An -tx1 -j79 -N1 disk.qcow2
