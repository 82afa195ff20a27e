# coimg only
truncate -s 1M a.raw
echo old >existing
coimg convert -f raw -O qcow2 -B nofile -F raw a.raw new
echo "exit code $?"
coimg convert -f raw -O qcow2 -B nofile -F raw a.raw existing
echo "exit code $?"
# The file that is to become its own backing file is there until then.
coimg create -q -f qcow2 base 1M
coimg convert -f raw -O qcow2 -B base -F qcow2 a.raw ./base
echo "exit code $?"
coimg compare a.raw base
ls -A
cat existing
