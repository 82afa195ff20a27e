# coimg only
coimg measure -O add-cow --size 300M -o cluster_size=4k
coimg create -q -f add-cow -o cluster_size=4k disk.add-cow 300M
echo $(($(stat -c %s disk.add-cow) + $(stat -c %s disk.img))) bytes
