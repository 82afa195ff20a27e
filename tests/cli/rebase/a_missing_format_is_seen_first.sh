# coimg only
yes | head -c 1M >a.raw
coimg create -q b.raw 1M
coimg create -q -f qcow2 -b a.raw -F raw o.qcow2
coimg rebase -b b.raw o.qcow2
echo "exit code $?"
coimg map --output=json o.qcow2 | grep -c '"depth": 0'
