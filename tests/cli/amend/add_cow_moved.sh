# coimg only
# The image file was moved: its new name is all that has to be said.
mkdir d
head -c 1M /dev/zero | tr '\0' x >base.raw
coimg create -q -f add-cow -b base.raw -F raw -o image_file=disk.img disk.add-cow
coimg io -f add-cow -c 'write -q -P 7 0 100k' disk.add-cow
mv disk.img d/moved.img
coimg amend -o image_file=d/no.img disk.add-cow
coimg amend -o image_fmt=raw disk.add-cow
coimg amend -o image_file=base.raw disk.add-cow
coimg amend -o image_file=d/moved.img,image_fmt=qcow2 disk.add-cow
coimg amend -o image_file=d/moved.img disk.add-cow
coimg info disk.add-cow | grep 'image f'
coimg io -f add-cow -r -c 'read -q -P 7 0 100k' -c 'read -q -P 120 128k 896k' disk.add-cow
echo "the add-cow file too:"
mv disk.add-cow d/
coimg amend -o image_file=moved.img d/disk.add-cow
coimg rebase -u -b ../base.raw -F raw d/disk.add-cow
coimg amend -o image_file=moved.img d/disk.add-cow
coimg io -f add-cow -r -c 'read -q -P 7 0 100k' -c 'read -q -P 120 128k 896k' d/disk.add-cow
echo "one that is larger than the bitmap is no image file of this disk:"
mv d/moved.img d/again.img
truncate -s 40G d/large.img
coimg amend -o image_file=large.img d/disk.add-cow
