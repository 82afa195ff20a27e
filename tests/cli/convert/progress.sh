truncate -s 1M a.raw
qemu-img convert -p -f raw a.raw b.raw | tr '\r' '\n' | sed -e '/^$/d' | sed -n -e 1p -e '$p'
qemu-img convert -p -q -f raw a.raw b.raw
qemu-img convert -p nofile b.raw | tr '\r' '\n'
