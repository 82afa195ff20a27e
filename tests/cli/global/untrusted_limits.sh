# coimg only
# not sanitized
# The limits are those of the manual; lower ones stay.
truncate -s 1M a.raw
limits() { grep -E 'cpu time|file size|core|address' "/proc/$1/limits" | sed -E 's/ +[a-z]+ *$//; s/  +/ /g'; }
coimg --untrusted io -f raw -c 'sleep 5000' a.raw &
sleep 0.5
limits $!
kill $!
(ulimit -v 1000000; ulimit -t 77; exec coimg --untrusted io -f raw -c 'sleep 5000' a.raw) &
sleep 0.5
limits $!
kill $!
