# coimg only
# At this rate the first request alone is worth ten minutes.
yes | head -c 4M >flat.raw
for signal in INT TERM; do
  rm -f base.raw top.qcow2
  truncate -s 4M base.raw
  coimg create -q -f qcow2 -b base.raw -F raw top.qcow2
  coimg convert -n -f raw -O qcow2 flat.raw top.qcow2
  env --default-signal=INT coimg commit -r 2k top.qcow2 &
  sleep 1
  kill -$signal $!
  timeout 60 tail --pid=$! -f /dev/null || { echo "$signal: still running"; kill -KILL $!; }
  wait $!
  echo "$signal: exit code $?"
  coimg compare flat.raw top.qcow2
  coimg check top.qcow2 | head -1
  coimg commit top.qcow2
  coimg compare flat.raw base.raw
  coimg compare flat.raw top.qcow2
done 2>/dev/null
