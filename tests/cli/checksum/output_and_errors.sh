# coimg only
seq 1000 | head -c 3k >a.raw
coimg create -q -f qcow2 empty.qcow2 1G
coimg checksum a.raw empty.qcow2
echo "exit code $?"
coimg checksum --flat -f raw a.raw | sha256sum -c
coimg checksum --output=json -a blake2b --flat a.raw
coimg checksum -p empty.qcow2 | tr '\r' '\n'
coimg checksum --image-opts driver=raw,size=1k,file.filename=a.raw
coimg checksum -a xxh3 nofile a.raw
echo "exit code $?"
printf 'QFI\373\0\0\0\11' | dd of=bad.qcow2 status=none
coimg checksum --output=json bad.qcow2
echo "exit code $?"
coimg checksum -a md5 a.raw
echo "exit code $?"
coimg checksum
echo "exit code $?"
# A writer has the image: only -U reads it.
coimg convert -f raw -O qcow2 a.raw busy.qcow2
(sleep 1 | coimg io busy.qcow2) >/dev/null 2>&1 &
sleep 0.4
coimg checksum busy.qcow2
echo "exit code $?"
coimg checksum -U busy.qcow2
wait $!
