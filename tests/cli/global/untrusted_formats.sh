# coimg only
# A guest may write the header of another format to the start of its raw disk.
exec 2>&1
coimg create -q -f qcow2 -u -b /etc/passwd -F raw guest.raw 1M
truncate -s 192k guest.raw
coimg --untrusted info -f raw guest.raw | head -n 2
coimg --untrusted info guest.raw | head -n 2
coimg --untrusted convert -f raw -O raw guest.raw copy.raw && cmp guest.raw copy.raw
coimg --untrusted convert -O raw guest.raw probed.raw
coimg --untrusted compare -f raw guest.raw copy.raw
coimg --untrusted compare -f raw -F raw guest.raw copy.raw
coimg --untrusted map guest.raw
coimg --untrusted measure -O qcow2 guest.raw
coimg --untrusted check guest.raw
coimg --untrusted io -c 'read 0 512' guest.raw
coimg --untrusted convert -O raw 'json:{"driver": "qcow2", "file": {"driver": "file", "filename": "guest.raw"}}' probed.raw
coimg --untrusted convert -O raw 'json:{"file": {"driver": "file", "filename": "guest.raw"}}' probed.raw
printf 'KDMV' | dd of=copy.raw conv=notrunc status=none
coimg --untrusted info copy.raw
qemu-img --untrusted info guest.raw
ls
