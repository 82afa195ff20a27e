truncate -s 4M a.raw
yes | head -c 65536 | dd of=a.raw bs=65536 seek=16 conv=notrunc status=none
dd if=/dev/zero of=a.raw bs=65536 seek=20 count=4 conv=notrunc status=none
qemu-img convert -f raw a.raw b.raw
cmp a.raw b.raw
qemu-img convert -f raw -O qcow2 a.raw c.qcow2
qemu-img map c.qcow2 | wc -l
qemu-img convert -f raw -S 0 a.raw d.raw
cmp a.raw d.raw && [ $(($(stat -c '%b * %B' d.raw))) -ge 4194304 ] && echo "fully allocated"
