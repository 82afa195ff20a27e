# coimg only
# Errors and warnings are one object a line, and say what is known.
exec 2>&1
coimg create -q -f qcow2 bits.qcow2 1M
printf '\x30' | dd of=bits.qcow2 bs=1 seek=23 conv=notrunc status=none
coimg --log-format=json info bits.qcow2
coimg --log-format json info none
coimg --log-format=json info
coimg --log-format=json create -f raw a.raw 1M
coimg --log-format=json resize a.raw 2M
coimg --log-format=json -T nonsense info -f raw $'a\xff\n.raw'
coimg create -q -f qcow2 -u -b gone.qcow2 -F qcow2 overlay.qcow2 1M
coimg --log-format=json map overlay.qcow2
coimg create -q -f qcow2 -o preallocation=metadata leak.qcow2 64k
truncate -s 1M leak.qcow2
printf '\0\1' | dd of=leak.qcow2 bs=1 seek=$((0x20000 + 12)) conv=notrunc status=none
coimg --log-format=json check -q leak.qcow2
coimg --log-format=json fly
coimg --log-format=text fly
coimg --log-format=yaml info a.raw
qemu-img --log-format=json info a.raw
COIMG_COMPAT=qemu-img coimg --log-format=json info a.raw
