qemu-img create a.raw 513
stat -c %s a.raw
qemu-img create b.raw 1.5k
stat -c %s b.raw
