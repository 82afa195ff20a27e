# coimg only
coimg create -q -f qcow2 bad.qcow2 1M
head -c 64k /dev/zero | tr '\0' x >x
coimg convert -n -O qcow2 x bad.qcow2
truncate -s 300000 bad.qcow2
printf '\200\0\0\0\0\377\377\1' | dd of=bad.qcow2 bs=1 seek=262144 conv=notrunc status=none # an entry that cannot be
coimg convert -O add-cow -o image_file=t.img bad.qcow2 t.add-cow 2>/dev/null
echo "exit code $?"
ls
