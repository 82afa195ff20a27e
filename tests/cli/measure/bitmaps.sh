# coimg only
coimg create -q -f qcow2 disk.qcow2 1G
coimg bitmap --add -g 4k disk.qcow2 some
coimg bitmap --add disk.qcow2 none
coimg io -c 'write 5M 100k' disk.qcow2 >/dev/null
coimg measure -O qcow2 --output=json disk.qcow2
coimg convert --bitmaps -O qcow2 disk.qcow2 copy.qcow2
echo $(stat -c %s copy.qcow2) bytes
coimg measure -O qcow2 -o cluster_size=512 disk.qcow2
coimg measure -O qcow2 -o compat=0.10 disk.qcow2
coimg create -q -f qcow2 base.qcow2 1G
coimg measure -O qcow2 -o backing_file=base.qcow2,backing_fmt=qcow2 disk.qcow2

# One whose table is damaged: the last cluster of the image is the directory, in front of it are the tables.
tables=$(($(stat -c %s disk.qcow2) / 65536 - 2))
dd if=/dev/zero bs=64k count=2 status=none | tr '\0' '\377' |
  dd of=disk.qcow2 bs=64k seek=$tables conv=notrunc status=none
coimg measure -O qcow2 disk.qcow2
coimg convert --bitmaps -O qcow2 disk.qcow2 copy.qcow2

# Many large ones: not read.
coimg create -q -f qcow2 large.qcow2 2T
for name in 1 2 3 4 5 6 7 8; do coimg bitmap --add -g 512 large.qcow2 $name; done
coimg measure -O qcow2 large.qcow2
coimg bitmap --add -g 512 large.qcow2 9
coimg measure -O qcow2 large.qcow2
