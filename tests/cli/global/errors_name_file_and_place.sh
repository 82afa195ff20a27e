# coimg only
# As coimg an error says which file and where; as qemu-img the words are qemu-img's.
yes | head -c 1M >a.raw
coimg create -q -f qcow2 bits.qcow2 1M
printf '\x30' | dd of=bits.qcow2 bs=1 seek=23 conv=notrunc status=none
coimg info bits.qcow2
qemu-img info bits.qcow2
coimg convert -f raw -O qcow2 a.raw l2.qcow2
printf '\x80\0\0\0\0\0\x02\0' | dd of=l2.qcow2 bs=1 seek=262144 conv=notrunc status=none
coimg convert -O raw l2.qcow2 l2.raw
qemu-img convert -O raw l2.qcow2 l2.raw
ulimit -f 512
coimg convert -f raw -O qcow2 a.raw full.qcow2
qemu-img convert -f raw -O qcow2 a.raw full.qcow2
ls
