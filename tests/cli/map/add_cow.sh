# coimg only
head -c 1M /dev/zero | tr '\0' x >base.raw
coimg create -q -f add-cow -b base.raw -F raw -o image_file=disk.img disk.add-cow 1536k
coimg create -q -f qcow2 -b base.raw -F raw top.qcow2 1536k
head -c 128k /dev/zero | tr '\0' y >y
coimg convert -n -O add-cow y disk.add-cow
coimg map disk.add-cow
coimg map --output=json disk.add-cow
