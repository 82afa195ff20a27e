qemu-img
