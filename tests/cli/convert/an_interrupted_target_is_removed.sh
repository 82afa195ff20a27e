# coimg only
yes | head -c 8M >a.raw
for signal in INT TERM HUP; do
  # A shell lets what it starts in the background ignore SIGINT; env puts the default back.
  env --default-signal=INT coimg convert -f raw -r 1M a.raw "target.$signal" &
  until [ -s "target.$signal" ]; do sleep 0.05; done
  kill -$signal $!
  wait $!
  echo "$signal: exit code $?"
done 2>/dev/null
ls
