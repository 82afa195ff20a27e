# coimg only
head -c 1M /dev/zero | tr '\0' x >base.raw
coimg create -q -f add-cow -b base.raw -F raw -o image_file=disk.img disk.add-cow
rm base.raw # which check has no use for
coimg check disk.add-cow
echo "exit code $?"
printf '\377' | dd of=disk.add-cow bs=1 seek=65540 conv=notrunc status=none
coimg check disk.add-cow
echo "exit code $?"
coimg check -r all disk.add-cow
echo "exit code $?"
printf xyz | dd of=disk.img bs=1 seek=100000 conv=notrunc status=none
coimg check disk.add-cow
echo "exit code $?"
coimg check -r leaks disk.add-cow
echo "exit code $?"
stat -c '%b blocks' disk.img
truncate -s 65536 disk.add-cow
coimg check -q disk.add-cow
echo "exit code $?"
coimg check -q -r all disk.add-cow
echo "exit code $?"
printf '\1' | dd of=disk.add-cow bs=1 seek=24 conv=notrunc status=none
printf '\0' | dd of=disk.add-cow bs=1 seek=60 conv=notrunc status=none
coimg check disk.add-cow
echo "exit code $?"
