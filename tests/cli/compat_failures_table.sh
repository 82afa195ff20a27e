# All messages of a failing command line: the catalogue of what callers may look for.
# shellcheck shell=bash

setup_every_program_message() {
  :
}

group every_program_message
same 'qemu-img'
same 'qemu-img frobnicate'
same 'qemu-img -x'
same 'qemu-img --trace'
same 'qemu-img info'
same 'qemu-img info a b'
same 'qemu-img info -f'
same 'qemu-img info --bogus x'
same 'qemu-img info --output=xml x'
same 'qemu-img compare x'
same 'qemu-img create'
same 'qemu-img create x 1M y'
same 'qemu-img resize x'
same 'qemu-img resize -h'
same 'qemu-img rebase x'
same 'qemu-img rebase -b y'
same 'qemu-img amend x'
same 'qemu-img amend -o size=1M'
same 'qemu-img snapshot -l -d x y'
same 'qemu-img convert x'
same 'qemu-img dd if=x'
same 'qemu-img dd nonsense if=x of=y'
same 'qemu-img bitmap x b'
same 'qemu-img bitmap --add x'
same 'qemu-img measure'
same 'qemu-img measure a b'
same 'qemu-img check -r some x'

setup_every_open_message() {
  setup_open
  printf 'QFI\373\0\0\0\003' >short.qcow2 && truncate -s 512 short.qcow2
  qemu-img create -q --object secret,id=k,data=x -f qcow2 -o encrypt.format=aes,encrypt.key-secret=k enc.qcow2 1M
}

group every_open_message
same 'qemu-img info nofile'
same 'qemu-img check nofile'
same 'qemu-img compare nofile a.raw'
same 'qemu-img info -f bogus a.raw'
same 'qemu-img info -f qcow2 a.raw'
same "qemu-img info ''"
same 'qemu-img info d'
same 'qemu-img info d:x'
same 'qemu-img info v9.qcow2'
same 'qemu-img info short.qcow2'
same 'qemu-img info bits.qcow2'
same 'qemu-img info feat.qcow2'
same 'qemu-img resize cor.qcow2 2M'
same 'qemu-img map gone.qcow2'
same 'qemu-img check gone.qcow2'
same 'qemu-img info --backing-chain gone.qcow2'
needs encryption 'qemu-img check enc.qcow2'
needs encryption 'qemu-img map --image-opts driver=qcow2,file.filename=enc.qcow2,encrypt.key-secret=k'
same 'qemu-img info --image-opts a.qcow2'
same 'qemu-img info --image-opts -f qcow2 file.filename=a.qcow2'
same 'qemu-img info --image-opts filename=a.qcow2'
same 'qemu-img info --image-opts driver=qcow2'
same 'qemu-img info --image-opts driver=qcow2,file.filename=a.qcow2,bogus=1'
same 'qemu-img info --image-opts driver=nosuch,file.filename=a.qcow2'
same 'qemu-img info json:{}'
same "qemu-img info 'json:{oops'"
same "qemu-img info 'json:[1]'"
same 'qemu-img check -U -r all a.qcow2'
same 'qemu-img info -U --image-opts driver=raw,file.filename=a.raw,force-share=off'
same 'qemu-img check -T fast a.qcow2'
needs nbd 'qemu-img info nbd:unix:nosock'
needs nbd 'qemu-img info nbd://localhost:1/x'
needs nbd 'qemu-img info nbd:'
needs nbd 'qemu-img info nbd://'
needs nbd 'qemu-img info nbd:foo'
needs nbd 'qemu-img info --image-opts driver=nbd'

setup_every_create_message() {
  setup_create
  mkdir -p d
}

group every_create_message
same 'qemu-img create x'
same 'qemu-img create x 1MB'
same 'qemu-img create x 16E'
same 'qemu-img create -f bogus x 1M'
same 'qemu-img create -f qcow2 foo:bar 1M'
same 'qemu-img create -f qcow2 json:{} 1M'
same 'qemu-img create nodir/x 1M'
same 'qemu-img create d 1M'
same 'qemu-img create /dev/null 1M'
same 'qemu-img create x 7E'
same 'qemu-img create -f qcow2 x 64P'
same 'qemu-img create -f qcow2 -o size=1M x 1M'
same 'qemu-img create -f qcow2 -o bogus=1 x 1M'
same "qemu-img create -f qcow2 -o '' x 1M"
same 'qemu-img create -f qcow2 -o cluster_size=abc x 1M'
same 'qemu-img create -f qcow2 -o lazy_refcounts=maybe x 1M'
same 'qemu-img create -f qcow2 -o refcount_bits=x x 1M'
same 'qemu-img create -f qcow2 -o preallocation=bogus x 1M'
same 'qemu-img create -f raw -o preallocation=metadata x 1M'
differs stderr 'the hint ends with a newline' 'qemu-img create -f qcow2 -b b.qcow2 x'
same 'qemu-img create -f qcow2 -b nofile -F qcow2 x'
same 'qemu-img create -f qcow2 -b b.raw -F qcow2 x'
same 'qemu-img create -f qcow2 -b b.qcow2 -F bogus x'
same 'qemu-img create -f qcow2 -u -b nofile -F qcow2 x'
same 'qemu-img create -f qcow2 -u -b nofile x 1M'
same "qemu-img create -f qcow2 -b '' x 1M"
same 'qemu-img create -f qcow2 -b x -F qcow2 x'
same 'qemu-img create -f raw -b b.raw -F raw x'
same 'qemu-img create -f qcow2 -F qcow2 x 1M'
same 'qemu-img create -f qcow2 -b b.qcow2 -F qcow2 -o preallocation=full x'
same 'qemu-img create -f qcow2 -b b.qcow2 -F qcow2 -o data_file=z,data_file_raw=on x'
needs encryption 'qemu-img create -f qcow2 -o encrypt.format=luks x 1M'
needs encryption 'qemu-img create -f qcow2 -o encrypt.format=luks,encrypt.key-secret=k x 1M'
needs nbd 'qemu-img create -f qcow2 nbd://localhost:1/x 1M'

setup_every_convert_message() {
  setup_convert
  qemu-img create -q -f qcow2 brk.qcow2 1M
  qemu-img bitmap --add brk.qcow2 b0
  timeout -s KILL 1 qemu-io -f qcow2 -c 'write 0 4k' -c 'sleep 20000' brk.qcow2 || true
  qemu-img convert -f raw -O qcow2 a.raw bad.qcow2
  poke bad.qcow2 $((262144 + 8)) '\200\0\0\0\0\005\002\0'
}

group every_convert_message
same 'qemu-img convert nofile x'
same 'qemu-img convert -O bogus a.raw x'
same 'qemu-img convert -f raw a.raw a.raw'
same 'qemu-img convert -f raw a.raw nodir/x'
same 'qemu-img convert -f raw a.raw foo:x'
same 'qemu-img convert -f raw a.raw /dev/null'
same 'qemu-img convert -n -f raw a.raw nofile'
same 'qemu-img convert -n -f raw a.raw s.raw'
same 'qemu-img convert -n -f raw -O qcow2 -o cluster_size=4k a.raw a.qcow2'
same 'qemu-img convert -f raw --target-image-opts a.raw driver=raw,file.filename=s.raw'
same 'qemu-img convert -f raw --target-is-zero a.raw x'
same 'qemu-img convert -n --target-is-zero -B a.raw -F raw -f raw -O qcow2 a.raw a.qcow2'
same 'qemu-img convert -f raw -O raw -c a.raw x'
same 'qemu-img convert -f raw -O qcow2 -c -o preallocation=full a.raw x'
needs encryption 'qemu-img convert -f raw -O qcow2 -c -o encryption=on a.raw x'
same 'qemu-img convert -f raw -C -c -O qcow2 a.raw x'
same 'qemu-img convert -f raw -C -S 4k a.raw x'
same 'qemu-img convert -f raw -C --salvage a.raw x'
same 'qemu-img convert -f raw -S 100 a.raw x'
same 'qemu-img convert -f raw -m 17 a.raw x'
same 'qemu-img convert -f raw -r fast a.raw x'
same 'qemu-img convert -f raw -t fast a.raw x'
same 'qemu-img convert -f raw -T fast a.raw x'
same 'qemu-img convert -f raw -O qcow2 -o bogus=1 a.raw x'
same 'qemu-img convert -f raw -O qcow2 -o cluster_size=3 a.raw x'
same 'qemu-img convert -f raw -O qcow2 -B a.qcow2 a.raw x'
same 'qemu-img convert -f raw -O qcow2 -B nofile -F raw a.raw x'
same 'qemu-img convert -f raw -B a.raw -F raw a.raw x'
same 'qemu-img convert -f raw -O qcow2 -B a.raw -F raw a.raw a.raw x'
same 'qemu-img convert -l nosuch a.qcow2 x'
same 'qemu-img convert -l snapshot.foo=1 a.qcow2 x'
same 'qemu-img convert -f raw -l s a.raw x'
same 'qemu-img convert -l s a.qcow2 a.qcow2 x'
same 'qemu-img convert --skip-broken-bitmaps a.qcow2 x'
same 'qemu-img convert --bitmaps -O raw a.qcow2 x'
same 'qemu-img convert --bitmaps -f raw -O qcow2 a.raw x'
same 'qemu-img convert --bitmaps -O qcow2 brk.qcow2 x'
same 'qemu-img convert --bitmaps --skip-broken-bitmaps -O qcow2 brk.qcow2 x'
same 'qemu-img convert -O raw bad.qcow2 x'
same 'qemu-img dd if=nofile of=x'
same 'qemu-img dd -O bogus if=a.qcow2 of=x'
same 'qemu-img dd bs=0 if=a.qcow2 of=x'
same 'qemu-img dd if=a.qcow2 of=nodir/x'
same 'qemu-img dd bs=1M skip=9 if=a.qcow2 of=x'

setup_every_other_message() {
  qemu-img create -q -f qcow2 a.qcow2 1M
  qemu-img create -q -f qcow2 -b a.qcow2 -F qcow2 o.qcow2
  qemu-img create -q a.raw 1M
  qemu-img create -q -f qcow2 snap.qcow2 1M
  qemu-img snapshot -c one snap.qcow2
  qemu-img resize -q snap.qcow2 2M
  qemu-img create -q -f qcow2 -o compat=0.10 v2.qcow2 1M
  qemu-io -c 'write 0 64k' a.qcow2
  qemu-img convert -c -O qcow2 a.qcow2 c.qcow2
  qemu-img create -q -f qcow2 -o data_file=df.raw df.qcow2 1M
}

group every_other_message
same 'qemu-img commit a.qcow2'
same 'qemu-img commit -b other o.qcow2'
same 'qemu-img commit -t fast o.qcow2'
same 'qemu-img rebase -b a.qcow2 o.qcow2'
same 'qemu-img rebase -b nofile -F qcow2 o.qcow2'
same 'qemu-img rebase -b a.qcow2 -F bogus o.qcow2'
same 'qemu-img rebase -b o.qcow2 -F qcow2 o.qcow2'
same 'qemu-img rebase -f raw -u -b a.qcow2 -F qcow2 a.raw'
same 'qemu-img resize a.qcow2 512k'
same 'qemu-img resize a.qcow2 -2M'
same 'qemu-img resize a.qcow2 big'
same 'qemu-img resize a.qcow2 1048577'
same 'qemu-img resize a.qcow2 1E'
same 'qemu-img resize --preallocation=lots a.qcow2 2M'
same 'qemu-img resize --preallocation=full a.qcow2 1M'
same 'qemu-img resize --preallocation=metadata -f raw a.raw 2M'
needs nbd 'qemu-img resize -f raw nbd:unix:nosock 2M'
same 'qemu-img snapshot -a nosuch snap.qcow2'
same 'qemu-img snapshot -d nosuch snap.qcow2'
same 'qemu-img snapshot -d 1 snap.qcow2'
same 'qemu-img snapshot -c x df.qcow2'
same 'qemu-img snapshot -c x a.raw'
same 'qemu-img snapshot -U -c x a.qcow2'
same 'qemu-img amend -o compat=0.10 snap.qcow2'
same 'qemu-img amend -o compat=7 a.qcow2'
same 'qemu-img amend -o cluster_size=4k a.qcow2'
same 'qemu-img amend -o nonsense=1 a.qcow2'
same 'qemu-img amend -o backing_file=x o.qcow2'
same 'qemu-img amend -o lazy_refcounts=on v2.qcow2'
same 'qemu-img amend -o refcount_bits=8 v2.qcow2'
same 'qemu-img amend -o data_file=x a.qcow2'
same 'qemu-img amend -f raw -o size=2M a.raw'
differs stderr 'the file is named, not a node with a random number' 'qemu-img bitmap --add v2.qcow2 b'
differs stderr 'the file is named, not a node with a random number' 'qemu-img bitmap --add -f raw a.raw b'
same 'qemu-img bitmap --add -g 1000 a.qcow2 b'
same 'qemu-img bitmap -g 1k --clear a.qcow2 b'
same 'qemu-img bitmap --remove a.qcow2 b'
same 'qemu-img bitmap --merge x a.qcow2 b'
same 'qemu-img bitmap --merge x -F qcow2 a.qcow2 b'
same "qemu-img bitmap --add a.qcow2 ''"
same 'qemu-img map c.qcow2'
same 'qemu-img map --start-offset=x a.qcow2'
same 'qemu-img map --max-length=-1 a.qcow2'
same 'qemu-img check -f raw a.raw'
same 'qemu-img compare -T fast a.raw a.raw'
same 'qemu-img compare --object nonsense a.raw a.raw'
same 'qemu-img measure --size 1M a.qcow2'
same 'qemu-img measure --size 1M -f raw'
same 'qemu-img measure --size 1M -O bogus'
same 'qemu-img measure --size 1M -O qcow2 -o bogus=1'
same 'qemu-img measure --size 1E -O qcow2'
same 'qemu-img measure -l nosuch a.qcow2'
same 'qemu-img bench -c many a.qcow2'
same 'qemu-img bench -w --pattern=256 a.qcow2'
same 'qemu-img bench -t fast a.qcow2'
same 'qemu-img bench -i fast a.qcow2'
same 'qemu-img bench --flush-interval=5 a.qcow2'
same 'qemu-img map --object secret a.qcow2'
same 'qemu-img map --object secret,id=s a.qcow2'
same 'qemu-img map --object secret,id=s,data=x,foo=1 a.qcow2'
same 'qemu-img map --object secret,id=s,file=nofile a.qcow2'
same 'qemu-img map --object secret,id=s,data=x --object secret,id=s,data=y a.qcow2'

setup_every_lock_message() {
  qemu-img create -q -f qcow2 a.qcow2 1M
  qemu-img create -q -f qcow2 -b a.qcow2 -F qcow2 o.qcow2
  mkfifo commands
}

group every_lock_message
# Somebody else writes to a.qcow2 meanwhile.
held='exec 9<>commands; qemu-io a.qcow2 <&9 >prompt 2>&1 & holder=$!; until [ -s prompt ]; do sleep 0.02; done'
for command in 'info a.qcow2' 'check -r all a.qcow2' 'convert a.qcow2 x' 'create -f qcow2 a.qcow2 1M' 'map o.qcow2' \
  'commit o.qcow2' 'dd if=o.qcow2 of=x'; do
  same "$held; qemu-img $command; code=\$?; kill \$holder; wait \$holder 2>/dev/null; exit \$code"
done

setup_every_permission_message() {
  qemu-img create -q -f qcow2 no.qcow2 1M
  qemu-img create -q -f qcow2 ro.qcow2 1M
  mkdir rd
  chmod 0 no.qcow2
  chmod 444 ro.qcow2
  chmod 555 rd
}

# Root may do everything, so somebody else does it; who has to get at the programs and the files.
group every_permission_message
nobody=
[ "$(id -u)" -ne 0 ] || nobody='setpriv --reuid=65534 --regid=65534 --clear-groups'
chmod 711 "$scratch" "$scratch/ours" "$scratch/theirs"
if $nobody "$scratch/ours/qemu-img" --version >/dev/null 2>&1; then
  for command in 'info no.qcow2' 'resize ro.qcow2 2M' 'create -f qcow2 ro.qcow2 1M' 'convert -O raw ro.qcow2 rd/x'; do
    same "$nobody qemu-img $command"
  done
fi

setup_every_full_disk_message() {
  head -c 4M /dev/urandom >big.raw
  mkdir mnt
}

group every_full_disk_message
if unshare --mount --map-root-user mount -t tmpfs -o size=2m none /mnt 2>/dev/null; then
  for command in 'convert -m 1 -f raw big.raw mnt/x' 'dd -f raw bs=1M if=big.raw of=mnt/x' \
    'create -o preallocation=full mnt/x 4M'; do
    same "unshare --mount --map-root-user sh -c \"mount -t tmpfs -o size=2m none mnt && qemu-img $command\""
  done
fi
