yes | head -c 65536 >a.raw
qemu-img convert -f raw -c -O qcow2 a.raw c.qcow2
qemu-img map c.qcow2
