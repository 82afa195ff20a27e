# coimg only
# What goes to stdout and stderr is in its order when both are one file, one pipe or one terminal.
coimg create -q -f qcow2 a.qcow2 1M
coimg io -c 'write -q 0 64k' a.qcow2
coimg convert -c -O qcow2 a.qcow2 c.qcow2
truncate -s 1000 odd.raw
all() {
  coimg create -f qcow2 -o cluster_size=3k x 1M
  coimg map c.qcow2
  coimg bench -c 1 -f raw odd.raw
  coimg resize a.qcow2 2M
  coimg resize a.qcow2 1M
  coimg compare a.qcow2 odd.raw nofile
}
all >file 2>&1
all 2>&1 | cat >pipe
NO_COLOR=1 script -qec "$(declare -f all); all" /dev/null </dev/null | tr -d '\r' >terminal
cat file
cmp file pipe
cmp file terminal
