qemu-img create -q a.raw 1M
qemu-img info a.raw --out=json -fraw | grep format
qemu-img convert a.raw b.qcow2 -qO qcow2 -- 2>&1
qemu-img info -f qcow2 b.qcow2 -f raw | grep 'file format'
POSIXLY_CORRECT=1 qemu-img info a.raw --output=json
