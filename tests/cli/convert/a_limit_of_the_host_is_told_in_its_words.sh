qemu-img create -q -f qcow2 empty.qcow2 1G
(
  trap '' XFSZ
  ulimit -f 1000
  qemu-img create -f raw target.raw 1G
  qemu-img convert -O raw empty.qcow2 target.raw
  qemu-img dd -f qcow2 -O raw if=empty.qcow2 of=target.raw
  echo "exit code $?"
)
