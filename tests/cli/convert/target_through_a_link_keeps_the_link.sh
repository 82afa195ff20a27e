truncate -s 1M a.raw
echo old >real
ln -s real link
qemu-img convert -f raw a.raw link
[ -L link ] && stat -c %s real
