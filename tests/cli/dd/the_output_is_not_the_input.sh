# coimg only
yes | head -c 1M >a.raw
ln -s a.raw link
ln a.raw other
cp a.raw before
for output in a.raw link other ./a.raw; do
  coimg dd -f raw if=a.raw of=$output
  echo "exit code $?"
done
cmp a.raw before
coimg create -q -f qcow2 -b a.raw -F raw o.qcow2
coimg dd if=o.qcow2 of=a.raw
cmp a.raw before
