# coimg only
coimg create -q -f qcow2 disk.qcow2 1M
coimg io -c 'write -P 1 0 64k' disk.qcow2 >io.out
printf '\200\0\1\0\0\0\0\0' | dd of=disk.qcow2 bs=1 seek=$((0x30000)) conv=notrunc status=none
coimg io -c 'write -P 7 0 64k' disk.qcow2
echo "exit code $?"
od -An -tx1 -j79 -N1 disk.qcow2
[ "$(stat -c %s disk.qcow2)" -lt 1000000 ] && echo "the file has not grown to there"
