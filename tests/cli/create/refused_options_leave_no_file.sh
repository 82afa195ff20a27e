# coimg only
qemu-img create -f qcow2 -o cluster_size=3k x.qcow2 1M
echo "exit code $?"
qemu-img create -f qcow2 -b nofile -F qcow2 x.qcow2
echo "exit code $?"
ls
