# coimg only
coimg create -q -f add-cow disk.add-cow 1M
mv disk.img moved.img
coimg info disk.add-cow
there=driver=add-cow,file.filename=disk.add-cow,data-file.driver=raw,data-file.file.filename=moved.img
coimg amend -o image_file=other.img --image-opts $there
coimg amend -o image_file=moved.img,image_fmt=qcow2 --image-opts $there
coimg amend -o image_file=moved.img --image-opts $there
coimg info disk.add-cow | grep 'image f'
coimg amend -o backing_file=x disk.add-cow
