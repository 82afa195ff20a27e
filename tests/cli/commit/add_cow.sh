# coimg only
head -c 1M /dev/zero | tr '\0' x >base.raw
head -c 100k /dev/zero | tr '\0' y >y
coimg create -q -f add-cow -b base.raw -F raw -o image_file=disk.img disk.add-cow 1536k
coimg convert -n -O add-cow y disk.add-cow
coimg convert -O raw disk.add-cow seen
coimg commit disk.add-cow
cmp seen base.raw && echo "the backing file is the disk"
coimg compare -f add-cow -F raw disk.add-cow seen
stat -c '%b blocks' disk.img
coimg info disk.add-cow | grep allocated
coimg create -q -f add-cow alone.add-cow 1M
coimg commit alone.add-cow
echo "exit code $?"
