mkdir d
qemu-img create -q -f qcow2 base.qcow2 1M
qemu-img create -q -f qcow2 -b ../base.qcow2 -F qcow2 d/o.qcow2
qemu-img info --backing-chain d/o.qcow2 | grep -v '^disk size'
