# coimg only
# Each gets an error that names the file, exit code 1, and no target.
mkdir directory
coimg create -q -f qcow2 -u -b missing.raw -F raw without_backing.qcow2 1M
coimg create -q -f qcow2 -u -b loop2.qcow2 -F qcow2 loop1.qcow2 1M
coimg create -q -f qcow2 -u -b loop1.qcow2 -F qcow2 loop2.qcow2 1M
coimg create -q -f qcow2 short.qcow2 1M
truncate -s 100 short.qcow2
: >unreadable.raw
coimg create -q -f qcow2 features.qcow2 1M
printf '\x80' | dd of=features.qcow2 bs=1 seek=72 conv=notrunc status=none
coimg create -q -f qcow2 l1.qcow2 1M
printf '\xff\xff\xff\xff' | dd of=l1.qcow2 bs=1 seek=36 conv=notrunc status=none
for source in directory missing.qcow2 without_backing.qcow2 loop1.qcow2 short.qcow2 features.qcow2 l1.qcow2; do
  format=
  [ "$source" = short.qcow2 ] && format="-f qcow2" # too short to be recognised
  coimg convert $format -O qcow2 "$source" target.qcow2
  echo "$source: exit code $?"
  [ ! -e target.qcow2 ] || { echo "a target was left"; rm target.qcow2; }
done 2>&1
