# coimg only
truncate -s 1M a.raw
cat >jobs <<'END'
{"id": "make", "command": "create -f qcow2 'with blank' 1M"}

{"id": "look", "command": ["info", "-f", "raw", "none"], "retries": 2}
{"id": "behind", "command": "info 'with blank'", "after": ["look"]}
{"id": "far behind", "command": "info 'with blank'", "after": ["behind"]}
{"id": "check", "command": "check 'with blank'", "after": ["make"]}
{"id": "differs", "command": "compare -f raw a.raw 'with blank'", "after": ["check"]}
{"id": "unreadable", "command": "compare -f raw none a.raw", "after": ["differs"]}
END
for more in '--jobs 1 -k' '-j 1' '--dry-run'; do
  rm -f 'with blank'
  coimg batch $more jobs 2>&1 | sed -E 's/\t[0-9]+\.[0-9]{2}\t/\tSECONDS\t/'
  echo "exit code ${PIPESTATUS[0]}"
done
coimg batch - <<<'{"id": "x", "command": "create -q a.raw 1M"}' | tail -n 1
coimg batch /dev/null
coimg batch --jobs 1 - <<'END' 2>&1 | sed -E 's/\t[0-9]+\.[0-9]{2}\t/\tSECONDS\t/'
# in YAML
- id: check
  command: check 'with blank'
  after: [make]
- id: make
  command: [create, -f, qcow2, with blank, 1M]
END
