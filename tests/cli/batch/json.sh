# coimg only
# Messages and warnings are with the job that they come from.
cat >jobs <<'END'
{"id": "raw", "command": "create -q a.raw 1M"}
{"id": "warned", "command": "resize -q a.raw 2M", "after": ["raw"]}
{"id": "make", "command": "create -f qcow2 a.qcow2 1M"}
{"id": "resize", "command": "resize --nonsense a.qcow2 2M", "after": ["make"]}
{"id": "next", "command": "check a.qcow2", "after": ["resize"]}
END
coimg batch -j 1 --output=json jobs | sed -E 's/"seconds": [0-9.]+/"seconds": S/'
coimg --log-format=json --progress=json batch -j 1 jobs 2>&1 >/dev/null
