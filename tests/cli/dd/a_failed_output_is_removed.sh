# coimg only
yes | head -c 4M >a.raw
for format in raw qcow2; do
  (ulimit -f 1024; coimg dd -f raw -O $format bs=1M if=a.raw of=b)
  echo "exit code $?"
done
ls
