# coimg only: qemu-io writes its output when it ends
coimg create -q -f raw a.raw 1M
coimg io -f raw -c length -c bogus -c 'truncate -m foo 5' -c length a.raw >both 2>&1
echo "exit $?"
cat both
