# coimg only
coimg create -q -f qcow2 -o cluster_size=4k disk.qcow2 1M
coimg io -c 'write 0 64k' disk.qcow2 >io.out
coimg snapshot -c one disk.qcow2
table=$((0x15000)) # of the snapshot
od -An -tx1 -j$table -N8 disk.qcow2
printf '\200\0\0\0\0\0\0\0' | dd of=disk.qcow2 bs=1 seek=$table conv=notrunc status=none
coimg check disk.qcow2 | sed 's/^Leaked cluster .*/Leaked cluster/' | uniq
coimg check -q disk.qcow2 >check.out
echo "exit code $?"
coimg check -q -r leaks disk.qcow2 >check.out
echo "exit code $?"
