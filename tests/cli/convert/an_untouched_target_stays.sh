truncate -s 1M a.raw
before=$(cksum <a.raw)
qemu-img convert -f raw a.raw a.raw
echo "exit code $?"
[ "$before" = "$(cksum <a.raw)" ] && echo "the source is as before"
echo old >existing
qemu-img convert -f raw -O qcow2 -o cluster_size=3k a.raw existing
echo "exit code $?"
