# coimg only
truncate -s 1M a.raw
echo old >existing
coimg convert -f raw -O qcow2 -B nofile -F raw a.raw new
echo "exit code $?"
coimg convert -f raw -O qcow2 -B nofile -F raw a.raw existing
echo "exit code $?"
ls
