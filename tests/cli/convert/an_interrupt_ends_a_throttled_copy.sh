# coimg only
# At this rate the first request alone is worth ten minutes.
yes | head -c 4M >a.raw
for signal in INT TERM; do
  env --default-signal=INT coimg convert -f raw -O qcow2 -r 2k a.raw "target.$signal" &
  until ls -l /proc/$!/fd 2>/dev/null | grep -q "(deleted)"; do sleep 0.05; done # it has begun
  sleep 0.5
  kill -$signal $!
  timeout 60 tail --pid=$! -f /dev/null || { echo "$signal: still running"; kill -KILL $!; }
  wait $!
  echo "$signal: exit code $?"
done 2>/dev/null
ls
