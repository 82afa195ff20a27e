# coimg only
# A guest has put the head of a qcow2 image, over a file of the host, on its raw disk.
head -c 1M /dev/zero | tr '\0' s >secret
coimg create -q -f qcow2 -b secret -F raw trap.qcow2
coimg create -q -f add-cow -o image_file=disk.img disk.add-cow 1M
coimg io -f add-cow -c "write -q -s trap.qcow2 0 $(stat -c %s trap.qcow2)" disk.add-cow
mv disk.img moved.img
there=driver=add-cow,file.filename=disk.add-cow,data-file.file.filename=moved.img
coimg info --image-opts $there | grep -E 'virtual|image format'
coimg convert --image-opts -O raw $there seen
cmp seen moved.img && echo "the disk is the guest's"
coimg amend -o image_file=moved.img disk.add-cow
coimg convert -f add-cow -O raw disk.add-cow seen
cmp seen moved.img && echo "the disk is the guest's"
