# coimg only
# As JSON, errors of requests say which file and which byte of it they are about; their words stay as they are.
exec 2>&1
json='coimg --log-format=json'
qemu-img create -q -f raw a.raw 4M
qemu-img create -q -f raw t.raw 4M
coimg io -f raw -c 'write -P 3 0 4M' a.raw >/dev/null
fails() {
  echo "driver=raw,file.driver=blkdebug,file.image.driver=file,file.image.filename=$1,file.inject-error.0.event=none,\
file.inject-error.0.iotype=$2,file.inject-error.0.errno=5,file.inject-error.0.sector=4096"
}
$json convert --image-opts "$(fails a.raw read)" -O raw o.raw
$json convert -f raw a.raw -n --target-image-opts "$(fails t.raw write)"
$json dd --image-opts if="$(fails a.raw read)" of=o.raw
$json compare --image-opts "$(fails a.raw read)" driver=raw,file.filename=a.raw 2>&1 | sed 's/ of driver=[^:]*//'
$json checksum --image-opts "$(fails a.raw read)" 2>&1 | sed 's/"driver=[^:]*: /"/'

coimg convert -c -f raw -O qcow2 a.raw c.qcow2
printf '\xff\xff\xff\xff\xff\xff' | dd of=c.qcow2 bs=1 seek=$((0x50000)) conv=notrunc status=none
$json checksum c.qcow2
coimg checksum c.qcow2
qemu-img create -q -f qcow2 -o preallocation=metadata d.qcow2 1M
printf '\x80\0\0\0\0\0\2\0' | dd of=d.qcow2 bs=1 seek=$((0x40010)) conv=notrunc status=none
$json checksum d.qcow2
$json check -q d.qcow2

$json create -q -f raw nodir/x 1M
$json create -q -f qcow2 -o nonsense=1 x 1M
$json convert -f raw a.raw -O qcow2 nodir/x
$json dd -f raw if=a.raw of=nodir/x
