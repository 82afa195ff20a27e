# coimg only
qemu-img create -q a.raw 1M
coimg info a.raw >/dev/full
echo "exit code $?"
