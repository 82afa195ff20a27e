# coimg only
head -c 1M /dev/zero | tr '\0' x >base.raw
ln base.raw again.raw
before=$(cksum ./*)
refused() { coimg create -q -f add-cow "$@" && echo "not refused: $*"; }
refused -b base.raw disk.add-cow
refused -o backing_file=base.raw,backing_fmt=raw,image_file=again.raw disk.add-cow
refused -o image_file=disk.add-cow disk.add-cow 1M
refused -b disk.img -F raw -u -o image_file=./disk.img disk.add-cow 1M
refused -o image_file=base.raw base.raw
refused -o image_file=base.raw disk.add-cow 512k
refused -o image_file=disk.img,image_fmt=vmdk disk.add-cow 1M
refused -o image_file=disk.img,backing_file=base.raw,backing_fmt=vmdk disk.add-cow 1M
refused -o image_file=disk.img,cluster_size=2k disk.add-cow 1M
refused -o image_file=disk.img,cluster_size=4M disk.add-cow 1M
refused -o image_file=disk.img,cluster_size=5000 disk.add-cow 1M
refused -o image_file=a:b disk.add-cow 1M
refused -o "image_file=$(head -c 3000 /dev/zero | tr '\0' i),cluster_size=4k" \
  -b "$(head -c 1020 /dev/zero | tr '\0' b)/x" -F raw -u disk.add-cow 1M
refused -o image_file=disk.img disk.add-cow
touch disk.img
refused disk.add-cow 1M
rm disk.img
[ "$before" = "$(cksum ./*)" ] && echo "all files are as before"
