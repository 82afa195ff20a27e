# coimg only
coimg --version
qemu-img --version
