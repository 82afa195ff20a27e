# coimg only
head -c 1M /dev/zero | tr '\0' x >base.raw
head -c 100k /dev/zero | tr '\0' y >y
head -c 1536k /dev/zero | tr '\0' z >poison
cp poison disk.img
coimg create -q -f add-cow -b base.raw -F raw -o image_file=disk.img disk.add-cow 1536k
coimg convert -n -O add-cow y disk.add-cow
coimg convert -O raw disk.add-cow seen
refused() { coimg rebase "$@" disk.add-cow; echo "exit code $?"; }
refused -b disk.img -F raw
refused -u -b disk.img -F raw
refused -b disk.add-cow -F add-cow
coimg create -q -f qcow2 -b disk.img -F raw -u loop.qcow2 1536k
refused -b loop.qcow2 -F qcow2
echo "complete:"
coimg rebase -b '' disk.add-cow && cmp seen disk.img && echo "the image file is the disk"
coimg info disk.add-cow | grep -E 'backing|all'
