# coimg only
yes | head -c 8M >a.raw
echo old >existing.TERM
for signal in INT TERM HUP; do
  for target in new existing; do
    # A shell lets what it starts in the background ignore SIGINT; env puts the default back.
    env --default-signal=INT coimg convert -f raw -r 1M a.raw "$target.$signal" &
    until ls -l /proc/$!/fd 2>/dev/null | grep -q '(deleted)'; do sleep 0.05; done # it has begun
    kill -$signal $!
    wait $!
    echo "$signal: exit code $?"
  done
done 2>/dev/null
ls -A
cat existing.TERM
