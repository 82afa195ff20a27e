name=$(printf 'x\303\251"\\\t\377')
qemu-img create -q "$name" 1M
qemu-img info --output=json "$name" | grep filename
