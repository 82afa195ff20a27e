truncate -s 1M a.raw
qemu-img check a.raw
echo "exit code $?"
qemu-img create -q -f qcow2 a.qcow2 1M
qemu-img check -q a.qcow2
echo "exit code $?"
qemu-img check nofile
echo "exit code $?"
