# coimg only
qemu-img create -q -f qcow2 -u -b b.qcow2 -F qcow2 a.qcow2 1M
ln a.qcow2 b.qcow2
coimg info --backing-chain a.qcow2
