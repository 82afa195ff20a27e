# Options that the other tables have no command line for: long forms, help, objects.
# shellcheck shell=bash

setup_every_option() {
  qemu-img create -q -f qcow2 a.qcow2 1M
  qemu-img create -q a.raw 1M
  qemu-io -f qcow2 -c 'write 64k 5k' a.qcow2
  qemu-img create -q -f qcow2 -b a.qcow2 -F qcow2 o.qcow2
  qemu-img snapshot -c one a.qcow2
}

group every_option
for command in amend bench bitmap check commit compare convert create dd info map measure snapshot rebase resize; do
  # The last word of resize is its size; the program's help is shown for any command.
  same "qemu-img $command -h x | grep -c '^  $command '"
  same "qemu-img $command --help x | grep -c '^  $command '"
  same "qemu-img $command --hel x | grep -c '^  $command '"
  same "qemu-img $command --h x | grep -c '^  $command '"
  same "qemu-img $command --help=yes x 2>&1 >/dev/null"
done
# Which options there are: of each letter and each long name what is said about it. measure prints the program's help.
letters=$(printf '%s ' {a..g} {i..z} {A..Z} {0..9} @ =)
names='add aio backing-chain bitmaps clear cmd copy-on-read disable discard enable flush-interval force force-share format
  granularity image-opts max-length merge no-drain object output pattern preallocation quiet read-only remove repair salvage
  shrink size skip-broken-bitmaps source-file source-format start-offset target-image-opts target-is-zero trace version'
for command in amend bench bitmap check commit compare convert create dd info map measure snapshot rebase resize; do
  same "for letter in $letters; do qemu-img $command -\$letter 2>&1 >/dev/null; done"
  same "for letter in $letters; do qemu-img $command -\$letter x y 2>&1 >/dev/null; done"
  same "for name in ${names//$'\n'/}; do qemu-img $command --\$name 2>&1 >/dev/null; qemu-img $command --\$name=1 2>&1 >/dev/null; done"
done
object='--object secret,id=s,data=x'
same "qemu-img amend $object -o lazy_refcounts=on a.qcow2"
same "qemu-img bitmap $object --add a.qcow2 b"
same "qemu-img check $object a.qcow2"
same "qemu-img commit $object o.qcow2"
same "qemu-img compare $object -f qcow2 -F qcow2 a.qcow2 o.qcow2"
same "qemu-img convert $object -O raw a.qcow2 x"
same "qemu-img create $object x 1M"
same "qemu-img dd $object if=a.qcow2 of=x"
same "qemu-img info $object a.raw"
same "qemu-img map $object --output=json a.qcow2"
same "qemu-img measure $object a.qcow2"
same "qemu-img snapshot $object -l a.qcow2 | cut -c 1-18"
same "qemu-img rebase $object -u -b '' o.qcow2"
same "qemu-img resize $object a.qcow2 2M"
for command in 'amend -o size=2M a.qcow2' 'bitmap --add a.qcow2 b' 'check a.qcow2' 'commit o.qcow2' 'compare a.qcow2 o.qcow2' \
  'convert a.qcow2 x' 'create x 1M' 'dd if=a.qcow2 of=x' 'info a.raw' 'map a.qcow2' 'measure a.qcow2' 'snapshot -l a.qcow2' \
  "rebase -u -b '' o.qcow2" 'resize a.qcow2 2M'; do
  same "qemu-img ${command%% *} --object nonsense ${command#* }"
  same "qemu-img ${command%% *} --object secret,id=s ${command#* }"
done
only='only secrets can be defined'
for command in 'amend -o size=2M a.qcow2' 'bitmap --add a.qcow2 b' 'check a.qcow2' 'commit o.qcow2' 'compare a.qcow2 o.qcow2' \
  'convert a.qcow2 x' 'create x 1M' 'dd if=a.qcow2 of=x' 'info a.raw' 'map a.qcow2' 'measure a.qcow2' 'snapshot -l a.qcow2' \
  "rebase -u -b '' o.qcow2" 'resize a.qcow2 2M'; do
  same "qemu-img ${command%% *} --object secret,help ${command#* }; ls x"
  differs stdout "$only" "qemu-img ${command%% *} --object help ${command#* }; ls x"
  same "qemu-img ${command%% *} --object secret,id=1s,data=x ${command#* }; ls x"
  same "qemu-img ${command%% *} --object secret,id=s,data=YQ==,format=base64 ${command#* } | cut -c 1-18"
done
same 'qemu-io --object secret,help a.raw'
differs stdout "$only" 'qemu-io --object help a.raw'
differs stdout "$only" 'qemu-img info --object authz-list,help a.raw'
differs stdout "$only" 'qemu-img info --object id=x,help a.raw'
differs stdout "$only" "qemu-img info --object '?' nofile -x"
same 'qemu-io --object secret,id=1s,data=x -c quit -f raw a.raw'
same 'qemu-io --object secret,id=s,data=YQ==,format=base64 -c quit -f raw a.raw'
key='secret,id=k,data=0123456789abcdef0123456789abcdef'
iv=AAAAAAAAAAAAAAAAAAAAAA==
for object in secret,id=s,data=Y,format=base64 'secret,id=s,data=****,format=base64' 'secret,id=s,data=Y Q,format=base64' \
  secret,id=s,data=,format=base64 secret,id=s,data=YQ=,format=base64 secret,id=s,data=abc,format=nope \
  secret,id=s,data=x,keyid=none secret,id=s,data=x,keyid=s secret,id=s,data=x,keyid= secret,id=s,data=x,iv=AAAA \
  secret,id=s,file=none,keyid=none secret,id=s,file=none,format=base64 secret,id=s,format=base64 \
  secret,id=1s,format=nope,foo=1 secret,id=1s,foo=1 secret,id=1s 'secret,id=,data=x' 'secret,id=a b,data=x' \
  'secret,id=a_.-9,data=x' secret,hel secret,help=1 help,secret 'secret,id=s,data=x,?' secret,help,foo=1 \
  '{"qom-type":"secret","id":"1s","data":"x"}' '{"qom-type":"secret","id":"s","data":"YQ==","format":"base64"}' \
  '{"qom-type":"help"}' help=on 'id=s,qom-type=secret,data=x' ',help' qom-type=secret,help; do
  same "qemu-img info --object '$object' a.raw"
done
for rest in data=x "data=x,iv=$iv" "data=x,iv=%" data=x,iv=AAAA "data=,iv=$iv" "data=%,format=base64,iv=$iv" "file=none,iv=$iv" \
  "data=AAAA,format=base64,iv=$iv" "data=kRhCfzEPtmIcxnpe4PoiSQ==,format=base64"; do
  same "qemu-img info --object $key --object secret,id=s,keyid=k,$rest a.raw"
done
same "qemu-img info --object secret,id=k,data=x --object secret,id=s,keyid=k,data=x a.raw"
same "qemu-img info --object secret,id=k,data=MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=,format=base64 \
  --object secret,id=s,keyid=k,data=x,iv=$iv a.raw"
differs stderr,stdout,exit 'what is encrypted is not decrypted' \
  "qemu-img info --object $key --object secret,id=s,keyid=k,data=0123456789abcdef,iv=$iv a.raw"
on=driver=qcow2,file.filename=a.qcow2
for options in file.aio=native file.aio=native,cache.direct=on file.aio=native,file.cache.direct=on file.aio=zzz \
  file.pr-manager=x file.pr-manager= l2-cache-entry-size=5 l2-cache-entry-size=0 l2-cache-entry-size=256 \
  l2-cache-entry-size=512 l2-cache-entry-size=513 l2-cache-entry-size=64k l2-cache-entry-size=128k cache-size=1 \
  cache-size=1M,l2-cache-size=2M cache-size=1M,refcount-cache-size=2M l2-cache-size=8E refcount-cache-size=8E \
  cache-size=4M,l2-cache-size=2M,refcount-cache-size=2M cache-clean-interval=4294967295 cache-clean-interval=4294967296 \
  detect-zeroes=unmap detect-zeroes=unmap,discard=unmap detect-zeroes=unmap,discard=ignore file.detect-zeroes=unmap \
  detect-zeroes=zz,discard=zz detect-zeroes=zz,node-name=1x node-name=1x node-name= node-name=a.b-c_9 \
  node-name=abcdefghijklmnopqrstuvwxyzabcde node-name=abcdefghijklmnopqrstuvwxyzabcdef file.node-name=1x 'node-name=#block1'; do
  same "qemu-img info --image-opts '$on,$options'"
done
same 'qemu-io --image-opts -c "write 0 64k" driver=qcow2,file.filename=a.qcow2,detect-zeroes=unmap'
for discard in '' '-d ignore' '-d unmap'; do
  same "qemu-io -f raw -c 'write 0 1M' a.raw >/dev/null; qemu-io $discard -f raw -c 'discard 0 1M' a.raw >/dev/null; du -k a.raw"
done
same 'qemu-io --image-opts -c "write 0 512" -t none driver=raw,file.filename=a.raw,file.aio=native'
for names in "'filename':'a.raw'" "'filename':'a\"b'" "'filename':'a\\'b'" "'filename':\"a\\'b\"" "'filename':\"a'b\\\"\"" \
  "'filename':'a\\x'" "'filename':'a\\/b\\t\\u00e9'" "'filename':''" "'filename':'a" "'filename\":'a'"; do
  text="json:{'driver':'raw','file':{'driver':'file',$names}}"
  same "qemu-img info $(printf %q "$text") 2>&1 | sed 's/JSON parse error.*//'"
done
same "qemu-img info --object \"{'qom-type':'secret','id':'s','data':'x'}\" a.raw"
for command in 'check a.qcow2' 'info a.qcow2' 'map a.qcow2' 'measure a.qcow2'; do
  same "qemu-img ${command%% *} -f qcow2 ${command#* }"
  same "qemu-img ${command%% *} --format qcow2 ${command#* } 2>&1 | head -n 1 | grep -v version"
  same "qemu-img ${command%% *} --format=raw ${command#* } 2>&1 | head -n 1 | grep -v version"
  same "qemu-img ${command%% *} --force-share ${command#* }"
  same "qemu-img ${command%% *} -U -fqcow2 ${command#* }"
done
same 'qemu-img compare --force-share a.qcow2 o.qcow2'
same 'qemu-img convert --force-share -O raw a.qcow2 x'
same 'qemu-img dd --force-share if=a.qcow2 of=x'
same 'qemu-img snapshot --force-share -l a.qcow2 | cut -c 1-18'
same 'qemu-img snapshot --force-share -c two a.qcow2'
same 'qemu-img snapshot --quiet -d one a.qcow2'
same 'qemu-img rebase --force-share -b "" o.qcow2'
same 'qemu-img check --quiet a.qcow2'
same 'qemu-img check --repair all a.qcow2'
same 'qemu-img check --repair=leaks a.qcow2'
same 'qemu-img check --rep a.qcow2'
