# coimg only
yes | head -c 1M >a.raw
cat >jobs <<'END'
{"id": "a", "command": "convert -f raw -O qcow2 a.raw a.qcow2"}
{"id": "b", "command": "convert -f qcow2 -O raw a.qcow2 b.raw", "after": ["a"]}
{"id": "grow", "command": "resize -q a.qcow2 2M", "after": ["b"]}
{"id": "look", "command": "info none"}
END
again() { coimg batch -j 1 -k --state state "$@" jobs 2>/dev/null | cut -f 1-4 | grep -v '^\[' | tail -n +2; echo; }
again
again --resume
touch b.raw
again --resume
rm a.qcow2
coimg batch --state state --resume --dry-run jobs
echo
again --resume
again
yes | head -c 4M >large.raw
echo '{"id": "slow", "command": "convert -f raw -O raw -S 0 -r 1k large.raw slow.raw"}' >slow
coimg batch --state busy slow >/dev/null 2>&1 &
until ls -l /proc/$!/fd 2>/dev/null | grep -q large.raw; do sleep 0.05; done
coimg batch --state busy jobs 2>&1
kill $!
wait $! || true
