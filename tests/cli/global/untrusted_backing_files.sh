# coimg only
# Nothing is opened because an image names it: opening the pipe would take for ever.
exec 2>&1
mkfifo pipe
coimg create -q -f raw base.raw 1M
# try NAME FORMAT: an image with this backing file
try() {
  echo "--- $1"
  coimg create -q -f qcow2 -u -b "$1" -F "$2" evil.qcow2 1M
  timeout 20 coimg --untrusted info evil.qcow2 | grep -E '^(file format|backing)'
  timeout 20 coimg --untrusted info --backing-chain evil.qcow2
  timeout 20 coimg --untrusted convert -f qcow2 -O raw evil.qcow2 out.raw
  timeout 20 coimg --untrusted map -f qcow2 evil.qcow2
  timeout 20 coimg --untrusted check -f qcow2 evil.qcow2 | head -n 1
}
try pipe raw
try base.raw raw
try 'json:{"driver": "raw", "file": {"driver": "file", "filename": "base.raw"}}' raw
try nbd://localhost/x raw
try file:base.raw raw
echo '--- named by the user'
coimg --untrusted compare --image-opts \
  driver=qcow2,file.filename=evil.qcow2,backing.driver=raw,backing.file.filename=base.raw driver=raw,file.filename=base.raw
coimg --untrusted map --image-opts driver=qcow2,file.filename=evil.qcow2,backing.driver=raw
coimg --untrusted convert -f raw -O qcow2 -B base.raw -F raw base.raw made.qcow2 && echo 'what the user makes can name files'
coimg --untrusted convert -n -f raw -O qcow2 base.raw evil.qcow2
ls
