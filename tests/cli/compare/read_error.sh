# coimg only
truncate -s 1M a.raw
yes | head -c 1M >b.raw
qemu-img convert -f raw -c -O qcow2 b.raw c.qcow2
head -c 300000 c.qcow2 >d.qcow2
coimg compare b.raw d.qcow2 2>stderr
echo "exit code $?"
cut -d: -f1-2 stderr
