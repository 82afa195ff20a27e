head -c 1M /dev/zero | tr '\0' x >base.raw
ln base.raw other_name.raw
qemu-img create -q -f qcow2 -b base.raw -F raw top.qcow2
qemu-img convert -O raw top.qcow2 base.raw
echo "exit code $?"
qemu-img convert -O qcow2 top.qcow2 other_name.raw
echo "exit code $?"
tr -d x <base.raw | wc -c
