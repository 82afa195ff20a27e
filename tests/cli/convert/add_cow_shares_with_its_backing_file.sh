# coimg only
# Whatever the source is: what is the same in the backing file stays there.
head -c 1M /dev/urandom >base.raw
cp base.raw changed.raw
truncate -s 1100k changed.raw
printf y | dd of=changed.raw bs=1 seek=300000 conv=notrunc status=none
head -c 70000 /dev/zero | dd of=changed.raw bs=1 seek=655360 conv=notrunc status=none
coimg convert -f raw -O qcow2 -c changed.raw packed.qcow2
coimg create -q -f qcow2 -b packed.qcow2 -F qcow2 top.qcow2
coimg convert -f raw -O add-cow -o image_file=other.img changed.raw other.add-cow
for source in changed.raw packed.qcow2 top.qcow2 other.add-cow; do
  coimg convert -O add-cow -o image_file=t.img,backing_file=base.raw,backing_fmt=raw -f "${source##*.}" $source t.add-cow
  coimg compare -f add-cow -F raw t.add-cow changed.raw
  coimg map t.add-cow
  rm t.*
done
echo "all of it:"
coimg convert -S 0 -f raw -O add-cow -o image_file=t.img -B base.raw -F raw changed.raw t.add-cow
coimg map t.add-cow
