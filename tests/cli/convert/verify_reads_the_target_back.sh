# coimg only
seq 1000000 | head -c 3M >a.raw
truncate -s 5M a.raw
for way in "-O raw" "-O qcow2" "-c -O qcow2" "-O qcow2 -o data_file=t.data" "-O add-cow -o image_file=t.data" \
  "-t none -O qcow2" "-p -O raw" "-W -O qcow2"; do
  rm -f t.data
  coimg convert --verify -f raw $way a.raw target | tr '\r' '\n' | tail -n 2
  coimg compare -q a.raw target || echo "$way: different"
done
coimg convert --verify -f raw -O qcow2 a.raw a.raw two.qcow2
coimg create -q -f qcow2 there 8M
coimg convert -n -c --verify -f raw -O qcow2 a.raw there
echo "exit code $?"

# What the user says is not so: the backing file is another one, the target is not zero.
coimg create -q -f qcow2 -b a.raw -F raw over.qcow2
truncate -s 5M other.raw
echo old >existing
for target in new existing; do
  coimg convert --verify -O qcow2 -B other.raw -F raw over.qcow2 $target
  echo "exit code $?"
done
coimg convert --verify -c -O qcow2 -B other.raw -F raw over.qcow2 new
echo "exit code $?"
cat existing
tr '\0' x <other.raw >x.raw
truncate -s 4M zero.raw
printf y | dd of=x.raw bs=1 seek=4000000 conv=notrunc status=none
head -c 4000000 /dev/zero | dd of=x.raw conv=notrunc status=none
coimg convert --verify -n --target-is-zero -f raw -O raw zero.raw x.raw
echo "exit code $?"
coimg convert --verify --salvage a.raw b.raw
echo "exit code $?"
ls
