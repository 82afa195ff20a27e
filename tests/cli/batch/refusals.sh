# coimg only
# Nothing is run before all is known to be sound.
exec 2>&1
refuse() {
  printf '%s\n' '{"id": "first", "command": "create -q made 1M"}' "$@" >jobs
  coimg batch jobs || echo "exit code $?"
}
refuse '{"id": "a", "command": "info x", "after": ["b"]}' '{"id": "b", "command": "info x", "after": ["a"]}'
refuse '{"id": "a", "command": "info x", "after": ["nobody"]}'
refuse '{"id": "first", "command": "info x"}'
refuse '{"id": "a", "command": "fly"}'
refuse '{"id": "a", "command": "--untrusted info x"}'
refuse '{"id": "a", "command": "info x | tee y"}'
refuse '{"id": "a", "command": "info "x"}'
refuse '{"id": "a", "command": "batch jobs"}'
coimg batch none
coimg batch
coimg batch --resume jobs
coimg batch --jobs 0 jobs
coimg batch -r fast jobs
coimg batch --state none/state jobs
qemu-img batch jobs
qemu-img --help | grep -c '^  batch '
ls
