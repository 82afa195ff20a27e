# coimg only
head -c 64k /dev/zero | tr '\0' x >base.raw
head -c 64k /dev/zero | tr '\0' y >other.raw
coimg create -q -f qcow2 -o cluster_size=512 -b base.raw -F raw top.qcow2
coimg io -c 'write -P 2 9k 512' top.qcow2 >io.out
coimg convert -c -O qcow2 -o cluster_size=512 -B other.raw -F raw top.qcow2 moved.qcow2
coimg map --output=json moved.qcow2 | tr -d ' ' | cut -d, -f1-3
