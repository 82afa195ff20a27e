# coimg only
seq 200000 >a.raw
truncate -s 2M a.raw
for level in 1 6 19; do
  coimg convert -c --compression-level $level -f raw -O qcow2 a.raw $level.qcow2
  coimg compare -f raw -F qcow2 a.raw $level.qcow2
done
[ "$(stat -c %s 6.qcow2)" -lt "$(stat -c %s 1.qcow2)" ] && echo smaller
coimg convert -c --compression-level 0 -f raw -O qcow2 a.raw b.qcow2
coimg convert --compression-level 5 -f raw -O qcow2 a.raw b.qcow2
echo "exit code $?"
