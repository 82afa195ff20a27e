# coimg only
exec 2>&1
yes | head -c 1M >source.raw
coimg convert -f raw -O qcow2 -o data_file=data.raw source.raw image.qcow2
mv data.raw moved.raw
mkfifo data.raw
timeout 20 coimg --untrusted info image.qcow2 | grep -E 'format:|data file:'
timeout 20 coimg --untrusted convert -f qcow2 -O raw image.qcow2 out.raw
timeout 20 coimg --untrusted check -f qcow2 image.qcow2
coimg --untrusted compare --image-opts \
  driver=qcow2,file.filename=image.qcow2,data-file.driver=file,data-file.filename=moved.raw driver=raw,file.filename=source.raw
echo '--- add-cow'
coimg create -q -f raw base.raw 1M
coimg create -q -f add-cow -b base.raw -F raw -o image_file=plain.raw image.add-cow
rm plain.raw base.raw
mkfifo plain.raw base.raw
timeout 20 coimg --untrusted info image.add-cow | grep -v 'disk size'
timeout 20 coimg --untrusted info --output=json image.add-cow | grep -E 'size-known|image-file'
timeout 20 coimg --untrusted convert -f add-cow -O raw image.add-cow out.raw
coimg --untrusted compare --image-opts driver=raw,file.filename=source.raw \
  driver=add-cow,file.filename=image.add-cow,data-file.driver=raw,data-file.file.filename=source.raw
ls
