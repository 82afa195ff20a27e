# coimg only
coimg create -q -f qcow2 disk.qcow2 1G
coimg io -c 'write -P 1 5M 100k' -c 'write -P 0 700M 1M' disk.qcow2 >/dev/null
coimg measure -O qcow2 disk.qcow2
coimg measure -O qcow2 --detect-zeroes --output=json disk.qcow2
coimg convert -O qcow2 disk.qcow2 copy.qcow2
echo $(stat -c %s copy.qcow2) bytes
coimg measure -O raw --detect-zeroes disk.qcow2
coimg measure -O qcow2 -o compat=0.10,lazy_refcounts=on disk.qcow2
