# coimg only
mkdir d
head -c 1M /dev/zero | tr '\0' x >d/base.raw
coimg create -f add-cow -o backing_file=base.raw,backing_fmt=raw,image_file=disk.img,cluster_size=4k d/disk.add-cow
stat -c '%n %s' d/disk.add-cow d/disk.img
head -c 91 d/disk.add-cow | od -A d -t x1
coimg create -f add-cow d/named.add-cow 1000
stat -c '%n %s' d/named.add-cow d/named.img
coimg create -q -f qcow2 d/base.qcow2 2M
coimg create -f add-cow -b base.qcow2 d/probed.add-cow
coimg create -f add-cow -o image_file=base.raw d/adopted.add-cow
coimg compare -f raw -F add-cow d/base.raw d/adopted.add-cow
coimg create -f add-cow -o help | grep -v '^ *$'
