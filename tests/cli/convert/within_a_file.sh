# Into a part of the same file that overlaps, which has to be asked for: the target's writes do not change what has been
# read already.
head -c 1M /dev/urandom >file.raw
cp file.raw before.raw
bytes=$((1048576 - 65536))
coimg convert -U -n --image-opts --target-image-opts driver=raw,size=$bytes,file.filename=file.raw \
  driver=raw,offset=65536,size=$bytes,file.filename=file.raw
cmp -n $bytes -i 0:65536 before.raw file.raw && echo the same
