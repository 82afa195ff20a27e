# coimg only
qemu-img create -q -f qcow2 a.qcow2 1M
ln a.qcow2 other.qcow2
before=$(cksum <a.qcow2)
coimg create -f qcow2 -b other.qcow2 -F qcow2 a.qcow2
echo "exit code $?"
[ "$before" = "$(cksum <a.qcow2)" ] && echo "the image is as before"
