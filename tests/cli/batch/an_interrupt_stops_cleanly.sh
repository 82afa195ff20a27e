# coimg only
yes | head -c 4M >a.raw
for i in 1 2 3 4; do
  echo "{\"id\": \"$i\", \"command\": \"convert -f raw -O qcow2 -r 2k a.raw $i.qcow2\"}"
done >jobs
for signal in INT TERM; do
  env --default-signal=INT coimg batch -j 3 --state state jobs >"out.$signal" &
  until [ "$(ls -l /proc/$!/fd 2>/dev/null | grep -c a.raw)" -ge 3 ]; do sleep 0.05; done
  sleep 1
  kill -$signal $!
  timeout 50 tail --pid=$! -f /dev/null || { echo "$signal: still running"; kill -KILL $!; }
  wait $!
  echo "$signal: exit code $?"
  cut -f 1-4 "out.$signal"
  grep -c '"done": true' state
done 2>/dev/null
ls
