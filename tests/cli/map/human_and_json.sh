truncate -s 256k a.raw
yes | head -c 65536 | dd of=a.raw bs=65536 seek=1 conv=notrunc status=none
qemu-img map -f raw a.raw
qemu-img map -f raw --output=json a.raw
qemu-img map -f raw --output=json -s 96k -l 64k a.raw
