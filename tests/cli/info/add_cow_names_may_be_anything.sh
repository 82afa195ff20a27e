# coimg only
# An image from somebody else names files that we have; nothing of them is taken for what it is not.
coimg create -q -f qcow2 secret.qcow2 1M
coimg create -q -f add-cow -o image_file=secret.qcow2,image_fmt=raw disk.add-cow # a raw image that looks like qcow2
coimg info disk.add-cow | grep -E 'virtual size|image format'
coimg create -q -f add-cow -b secret.qcow2 -F qcow2 -o image_file=img other.add-cow
printf nbd:x | dd of=other.add-cow bs=1 seek=76 conv=notrunc status=none
printf '\5' | dd of=other.add-cow bs=1 seek=8 conv=notrunc status=none
coimg convert -O raw other.add-cow out.raw
printf fd:12 | dd of=other.add-cow bs=1 seek=76 conv=notrunc status=none
coimg convert -O raw other.add-cow out.raw
printf 'json:{}xxxxx' | dd of=other.add-cow bs=1 seek=76 conv=notrunc status=none
printf '\7' | dd of=other.add-cow bs=1 seek=8 conv=notrunc status=none
coimg convert -O raw other.add-cow out.raw
ls
