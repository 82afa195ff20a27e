# coimg only
mkdir d
head -c 1M /dev/zero | tr '\0' x >d/base.raw
coimg create -q -f add-cow -b base.raw -F raw -o image_file=disk.img d/disk.add-cow
coimg info d/disk.add-cow | sed 's/\(disk\|actual\) size: .*/\1 size: SIZE/'
coimg info --output=json d/disk.add-cow | sed 's/\(actual-size": \)[0-9]*/\1SIZE/'
rm d/base.raw
echo "without its backing file:"
coimg info d/disk.add-cow | grep backing
coimg rebase -u -b '' d/disk.add-cow
coimg create -q -f add-cow d/full.add-cow 1M
coimg info d/full.add-cow | grep all
