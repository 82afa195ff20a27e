# coimg only
cat >jobs <<'END'
{"id": "make", "command": "create -f qcow2 a.qcow2 1M"}
{"id": "resize", "command": "resize --nonsense a.qcow2 2M", "after": ["make"]}
{"id": "next", "command": "check a.qcow2", "after": ["resize"]}
END
coimg batch -j 2 --output=json jobs | sed -E 's/"seconds": [0-9.]+/"seconds": S/'
coimg --log-format=json --progress=json batch -j 2 jobs 2>&1 >/dev/null
