# The command lines that compat.sh runs with both programs.
# shellcheck shell=bash

setup_empty() { :; }

group empty
same 'qemu-img'
same 'qemu-img frobnicate'
same 'qemu-img -x'
same 'qemu-img --foo'
same 'qemu-img --help=x'
same 'qemu-img --trace'
same 'qemu-img -T x'
same 'qemu-img -T x info'
same 'qemu-img -- info'
same 'qemu-img info'
same 'qemu-img info a b'
same 'qemu-img info -f'
same 'qemu-img info --bogus x'
same 'qemu-img info --output=xml x'
same 'qemu-img info --output=xml'
same 'qemu-img compare x'
same 'qemu-img compare a b c'
same 'qemu-img create'
same 'qemu-img create x 1M y'
same 'qemu-img convert x'
same 'qemu-img convert'
same 'qemu-img check -r some x'
same 'qemu-img check -r'
same 'qemu-img check --output=foo -r bar x'
same 'qemu-img check --output=foo'
same 'qemu-img check -T bad'
same 'qemu-img map --output=x'
same 'qemu-img map --output=x a'
same 'qemu-img map x y'
same 'qemu-img map --start-offset=8E a'
same 'qemu-img convert -T fast'
same 'qemu-img convert -m 0 x y'
same 'qemu-img convert -m abc x y'
same 'qemu-img convert -m 17 x y'
same 'qemu-img convert -r x'
same 'qemu-img convert -r 1000000000000000000000 a b'
same 'qemu-img convert -S 32M a b'
same 'qemu-img convert -S 8E a b'
same 'qemu-img convert -O'
same 'qemu-img convert -l snapshot.foo=1'
same 'qemu-img convert -l ""'
same 'qemu-img convert --target-is-zero'
same 'qemu-img convert -n -o help x'
same 'qemu-img convert -n -o size=1'
same 'qemu-img convert --salvage -C a'
same 'qemu-img convert -o ""'
same 'qemu-img create -o "" x 1M'
same 'qemu-img create -o size=1M, x'
same 'qemu-img create -o ,size=1M x'
same 'qemu-img create x -- -1M'
same 'qemu-img create x -- 1M'
same 'qemu-img info --backing-chain=3 a'
same 'qemu-img info --o=json a'
same 'qemu-img info -f raw -h --bogus | grep -c "^  info "'
same 'qemu-img info --bogus -h'
same 'qemu-img --help | grep -o "^  [a-z]* " | grep -E " (check|compare|convert|create|info|map) "'
same 'qemu-img --help | grep -c "^Supported formats: "'
same 'qemu-img --help | grep -E "^  (check|compare|convert|create|info|map) "'
same 'qemu-img --version | grep -o "^qemu-img version 7[.]2[.]"'
same 'POSIXLY_CORRECT=1 qemu-img create x 1M -f qcow2'
same 'exec -a some/where/qemu-img.real qemu-img info'
differs stderr 'the message names the word with the bad letter' 'qemu-img info -Xf raw a'
differs stderr 'the message names the word with the bad letter' 'qemu-img create x -1M'
differs exit 'failed writes to standard output are errors' 'qemu-img --version >/dev/full 2>/dev/null'

setup_open() {
  qemu-img create -q a.raw 1M
  qemu-img create -q -f qcow2 a.qcow2 1M
  qemu-img create -q -f qcow2 -u -b nofile -F raw gone.qcow2 1M
  cp a.qcow2 v9.qcow2 && printf '\0\0\0\011' | dd of=v9.qcow2 bs=1 seek=4 conv=notrunc
  cp a.qcow2 feat.qcow2 && printf '\020' | dd of=feat.qcow2 bs=1 seek=72 conv=notrunc
  cp a.qcow2 bits.qcow2 && printf '\0\0\0\0' | dd of=bits.qcow2 bs=1 seek=20 conv=notrunc
  cp a.qcow2 cor.qcow2 && printf '\002' | dd of=cor.qcow2 bs=1 seek=79 conv=notrunc
  qemu-img create -q -f qcow2 -u -b loop.qcow2 -F qcow2 loop.qcow2 1M
  printf 12345 >odd
  mkdir d
  qemu-img create -q -f qcow2 -b ../a.qcow2 -F qcow2 d/o.qcow2
  ln -s d/o.qcow2 link.qcow2
  printf '\377\376"\\x' >'é"x'
}

group open
same 'qemu-img info nofile'
same 'qemu-img check nofile'
same 'qemu-img compare nofile a.raw'
same 'qemu-img compare a.raw nofile'
same 'qemu-img info -f bogus a.raw'
same 'qemu-img info -f qcow2 a.raw'
same "qemu-img info ''"
same 'qemu-img info d'
same 'qemu-img info d:x'
same 'qemu-img info v9.qcow2'
same 'qemu-img info bits.qcow2'
same 'qemu-img info feat.qcow2'
same 'qemu-img check -r all cor.qcow2'
same 'qemu-img check cor.qcow2'
same 'qemu-img info cor.qcow2'
same 'qemu-img map gone.qcow2'
same 'qemu-img check gone.qcow2'
same 'qemu-img info gone.qcow2'
same 'qemu-img info --output=json gone.qcow2'
same 'qemu-img info --backing-chain gone.qcow2'
same 'qemu-img info --image-opts a.qcow2'
same 'qemu-img info --image-opts -f qcow2 file.filename=a.qcow2'
same 'qemu-img info --image-opts filename=a.qcow2'
same 'qemu-img info --image-opts driver=qcow2'
same 'qemu-img info --image-opts driver=qcow2,file.filename=a.qcow2,bogus=1'
same 'qemu-img info --image-opts driver=nosuch,file.filename=a.qcow2'
same 'qemu-img info --image-opts driver=qcow2,file.filename=a.qcow2'
same 'qemu-img info json:{}'
same "qemu-img info 'json:{oops'"
same "qemu-img info 'json:[1]'"
same "qemu-img info 'json:{\"driver\":\"qcow2\",\"file\":{\"driver\":\"file\",\"filename\":\"a.qcow2\"}}'"
same "qemu-img info 'json:{\"driver\":\"raw\",\"offset\":65536,\"size\":512,\"file\":{\"driver\":\"file\",\"filename\":\"a.raw\"}}'"
same 'qemu-img info --image-opts driver=raw,offset=65536,size=512,file.filename=a.raw'
same 'qemu-img check -U -r all a.qcow2'
same 'qemu-img info -U --image-opts driver=raw,file.filename=a.raw,force-share=off'
same 'qemu-img check -T fast a.qcow2'
same 'qemu-img info a.raw'
same 'qemu-img info --output=json a.raw'
same 'qemu-img info file:a.raw'
same 'qemu-img info a.qcow2'
same 'qemu-img info -U --output=json a.qcow2'
same 'qemu-img info --out=json a.qcow2'
same 'qemu-img info a.qcow2 --output json -f qcow2'
same 'qemu-img info -fqcow2 a.qcow2'
same 'qemu-img info -f=qcow2 a.qcow2'
same 'qemu-img info odd'
same "qemu-img info 'é\"x'"
same "qemu-img info --output=json 'é\"x'"
same 'qemu-img info d/o.qcow2'
same 'qemu-img info --output=json d/o.qcow2'
same 'qemu-img info --backing-chain d/o.qcow2'
same 'qemu-img info --backing-chain --output=json d/o.qcow2'
same 'qemu-img info link.qcow2'
same 'qemu-img map link.qcow2'
same 'qemu-img info loop.qcow2'
same 'qemu-img info --backing-chain loop.qcow2'
same 'qemu-img info --backing-chain --output=json loop.qcow2'
same 'qemu-img check a.raw'
same 'qemu-img check -f raw a.raw'
same 'qemu-img check -q a.raw'
same 'qemu-img check --output=json a.raw'
same 'qemu-img check -r all a.raw'
same 'qemu-img check --image-opts -f raw x'
same 'qemu-img check --image-opts -f raw'
same 'qemu-img check a.qcow2'
same 'qemu-img check --output=json a.qcow2'
same 'qemu-img check -q --output=json a.qcow2'
same 'qemu-img check d/o.qcow2'
same 'qemu-img map --object secret a.qcow2'
same 'qemu-img map --object secret,id=s a.qcow2'
same 'qemu-img map --object secret,id=s,data=x a.qcow2'
same 'qemu-img map --object secret,id=s,data=x,foo=1 a.qcow2'
same 'qemu-img map --object secret,id=s,file=nofile a.qcow2'
same 'qemu-img map --object secret,id=s,data=x --object secret,id=s,data=y a.qcow2'
same 'qemu-img map --object nonsense a.qcow2'
same 'qemu-img compare --object nonsense a.raw a.raw'
same 'qemu-img compare -T fast a.raw a.raw'
same 'qemu-img compare -T bad a'
same 'qemu-img compare --image-opts -f raw a b'
same 'qemu-img compare --image-opts -F raw a b'
same 'qemu-img compare --image-opts -f raw a'
same 'qemu-img map --start-offset=x a.qcow2'
same 'qemu-img map --max-length=-1 a.qcow2'

setup_create() {
  qemu-img create -q -f qcow2 b.qcow2 1M
  qemu-img create -q b.raw 1M
  qemu-img create -q -f qcow2 -u -b gone -F raw mid.qcow2 1M
  cp b.qcow2 b,ase.qcow2
  mkdir d
}

group create
same 'qemu-img create x'
same 'qemu-img create -q x'
same 'qemu-img create x 1x'
same 'qemu-img create x 1MB'
same 'qemu-img create x 8E'
same 'qemu-img create x 16E'
same 'qemu-img create x 0x2k'
same 'qemu-img create x 1.5K && stat -c %s x'
same 'qemu-img create x 513 && stat -c %s x'
same 'qemu-img create -q x 513 && stat -c %s x'
same 'qemu-img create -f bogus x 1M'
same 'qemu-img create -f bogus x 1x'
same 'qemu-img create -f blkdebug x 1M; ls'
same 'qemu-img create -f blkdebug -o help'
same 'qemu-img create -f null-co x 1M; ls'
same 'qemu-img create -f host_device x 1M; ls'
same 'qemu-img create -f host_device -o help'
same 'qemu-img create -f file x 1M; stat -c %s x'
same 'qemu-img create -f qcow2 foo:bar 1M'
same 'qemu-img create -f qcow2 -o cluster_size=abc foo:x 1M'
same 'qemu-img create -f qcow2 json:{} 1M'
same 'qemu-img create nodir/x 1M'
differs stderr 'the empty name is refused in the words of all commands' "qemu-img create '' 1M"
same 'qemu-img create d 1M'
same 'qemu-img create x 7E'
same 'qemu-img create -f qcow2 x 64P'
same 'qemu-img create -f qcow2 -o size=1M x 1M'
same 'qemu-img create -o size=1M -o size=2M x'
same 'qemu-img create -o size=1M,bogus x'
same 'qemu-img create -o size=1M,,x x'
same 'qemu-img create -o size=16E x'
same 'qemu-img create -f qcow2 -o bogus=1 x 1M'
same 'qemu-img create -f qcow2 -o cluster_size=abc x 1M'
same 'qemu-img create -f qcow2 -o cluster_size=256 x 1M'
same 'qemu-img create -f qcow2 -o cluster_size=3k x 1M'
same 'qemu-img create -f qcow2 -o lazy_refcounts=maybe x 1M'
same 'qemu-img create -f qcow2 -o refcount_bits=x x 1M'
same 'qemu-img create -f qcow2 -o refcount_bits=3 x 1M'
same 'qemu-img create -f qcow2 -o refcount_bits=8,compat=0.10 x 1M'
same 'qemu-img create -f qcow2 -o lazy_refcounts=on,compat=0.10 x 1M'
same 'qemu-img create -f qcow2 -o extended_l2=on,cluster_size=8k x 1M'
same 'qemu-img create -f qcow2 -o compression_type=lz4 x 1M'
same 'qemu-img create -f qcow2 -o compat=0.9 x 1M'
same 'qemu-img create -f qcow2 -o data_file_raw=on x 1M'
same 'qemu-img create -f qcow2 -o preallocation=bogus x 1M'
same 'qemu-img create -f raw -o preallocation=metadata x 1M'
same 'qemu-img create -f raw -o preallocation=lots x 1M'
same 'qemu-img create -f raw -o preallocation=full x 1M && stat -c %b x'
same 'qemu-img create -f raw -o preallocation=falloc x 1M && stat -c %b x'
same 'qemu-img create -f qcow2 -b nofile -F qcow2 x'
same 'qemu-img create -f qcow2 -b b.raw -F qcow2 x'
same 'qemu-img create -f qcow2 -b b.qcow2 -F bogus x'
same 'qemu-img create -f qcow2 -u -b nofile -F qcow2 x'
same 'qemu-img create -f qcow2 -u -b nofile x 1M'
same 'qemu-img create -f qcow2 -u -b nofile -F qcow2 x 1M'
same 'qemu-img create -f qcow2 -u -b nofile -F bogus x 1M'
same "qemu-img create -f qcow2 -b '' x 1M"
same "qemu-img create -f qcow2 -b '' -F raw x 1M"
same 'qemu-img create -f qcow2 -o backing_file= x 1M'
same 'qemu-img create -f qcow2 -b x -F qcow2 x'
same 'qemu-img create -f raw -b b.raw -F raw x'
same 'qemu-img create -F raw x 1M'
same 'qemu-img create -f qcow2 -F qcow2 x 1M'
same 'qemu-img create -f qcow2 -b mid.qcow2 -F qcow2 x'
same 'qemu-img create -f qcow2 -b json:{} -F raw x 1M'
same 'qemu-img create -f qcow2 -b foo:x -F raw x 1M'
same 'qemu-img create -f qcow2 -b b.qcow2 -F qcow2 -o preallocation=full x'
same 'qemu-img create -f qcow2 -b b.qcow2 -F qcow2 -o data_file=z,data_file_raw=on x'
same 'qemu-img create -f qcow2 -b b.qcow2 -F qcow2 x && qemu-img info x | grep -v disk.size'
same 'qemu-img create -f qcow2 -b b.qcow2 -F qcow2 x 5M'
same 'qemu-img create -f qcow2 -b b.qcow2 -F qcow2 -o cluster_size=4k,lazy_refcounts x'
same 'qemu-img create -f qcow2 -b b.raw -F raw -o backing_file=zz,backing_fmt=qq x'
same 'qemu-img create -f qcow2 -b b.qcow2 -F qcow2 d/x'
same 'qemu-img create -f qcow2 -b ../b.qcow2 -F qcow2 d/x'
same 'qemu-img create -f qcow2 -o "backing_file=b,,ase.qcow2,backing_fmt=qcow2" x'
same 'qemu-img create -f qcow2 -o "backing_file=b,ase.qcow2,backing_fmt=qcow2" x'
same 'qemu-img create -f qcow2 -b b,ase.qcow2 -F qcow2 x'
same 'qemu-img create -f qcow2 x 1M && qemu-img check x'
same 'qemu-img create -f qcow2 -o nolazy_refcounts,compat=v2 x 1M && qemu-img info x | grep -v disk.size'
same 'qemu-img create -f raw -o help'
same 'qemu-img create -f raw -o help x.raw'
same 'qemu-img create -f qcow2 -o "?"'
same 'qemu-img create -f qcow2 -o size=1M -o help,x y'
same 'qemu-img create -f bogus -o help'
same 'qemu-img create -f bogus -o help x'
same 'qemu-img create -f raw -o help foo:bar'
same 'qemu-img create --object secret,id=s,data=x x 1M'
same 'qemu-img create --object bogus,id=s x 1M'
same "qemu-img create --object '' x 1M"
differs stderr 'the hint ends with a newline' 'qemu-img create -f qcow2 -b b.qcow2 x'
differs stderr 'the hint ends with a newline' 'qemu-img create -f qcow2 -b b.raw x 5M'
differs stdout,stderr 'sizes that no file can have are refused at once' 'qemu-img create -o size=8E x'
differs stdout,stderr,exit 'an image must not become its own backing file' 'qemu-img create -f qcow2 -b ./b.qcow2 -F qcow2 b.qcow2'

setup_compare() {
  qemu-img create -q a.raw 1M
  printf x | dd of=a.raw bs=1 seek=1000 conv=notrunc
  qemu-img convert -O qcow2 a.raw a.qcow2
  qemu-img convert -c -O qcow2 a.raw c.qcow2
  cp a.raw b.raw && printf x | dd of=b.raw bs=1 seek=70000 conv=notrunc
  cp a.raw big.raw && truncate -s 2M big.raw
  cp big.raw tail.raw && printf x | dd of=tail.raw bs=1 seek=1500000 conv=notrunc
  truncate -s 1M hole.raw
  qemu-img create -q -f qcow2 empty.qcow2 1M
  qemu-img create -q -f qcow2 -b empty.qcow2 -F qcow2 over.qcow2
  truncate -s 0 nothing.raw
}

group compare
same 'qemu-img compare a.raw a.qcow2'
same 'qemu-img compare a.raw a.raw'
same 'qemu-img compare a.raw b.raw'
same 'qemu-img compare b.raw a.raw'
same 'qemu-img compare a.qcow2 b.raw'
same 'qemu-img compare c.qcow2 b.raw'
same 'qemu-img compare c.qcow2 a.qcow2'
same 'qemu-img compare a.raw big.raw'
same 'qemu-img compare big.raw a.raw'
same 'qemu-img compare a.raw tail.raw'
same 'qemu-img compare tail.raw a.qcow2'
same 'qemu-img compare hole.raw a.raw'
same 'qemu-img compare empty.qcow2 hole.raw'
same 'qemu-img compare -s a.raw big.raw'
same 'qemu-img compare -s a.raw a.qcow2'
same 'qemu-img compare -s a.qcow2 a.qcow2'
same 'qemu-img compare -s a.qcow2 c.qcow2'
same 'qemu-img compare -s a.raw hole.raw'
same 'qemu-img compare -s empty.qcow2 over.qcow2'
same 'qemu-img compare -s empty.qcow2 hole.raw'
same 'qemu-img compare -q a.raw b.raw'
same 'qemu-img compare -q -s a.raw b.raw'
same 'qemu-img compare -q a.raw big.raw'
same 'qemu-img compare -p -q a.raw a.qcow2'
same 'qemu-img compare -p nothing.raw nothing.raw'
same 'qemu-img compare nothing.raw hole.raw'
same 'qemu-img compare nothing.raw a.raw'
same 'qemu-img compare -f qcow2 a.raw a.raw'
same 'qemu-img compare -f raw -F qcow2 a.raw a.qcow2'
same 'qemu-img compare -f raw -F raw a.raw a.qcow2'
same 'qemu-img compare -U a.raw a.qcow2'
same 'qemu-img compare --image-opts driver=raw,file.filename=a.raw driver=qcow2,file.filename=a.qcow2'

setup_convert() {
  qemu-img create -q a.raw 1M
  printf x | dd of=a.raw bs=1 seek=70000 conv=notrunc
  qemu-img create -q -f qcow2 a.qcow2 1M
  truncate -s 512k s.raw
  printf 12345 >odd
}

group convert
same 'qemu-img convert nofile x'
same 'qemu-img convert -O bogus a.raw x'
same 'qemu-img convert -O blkdebug a.raw x; ls'
same 'qemu-img convert -O null-co a.raw x; ls'
same 'qemu-img convert -O host_device a.raw x; ls'
same 'qemu-img convert -f raw a.raw a.raw; cksum a.raw'
same 'qemu-img convert a.qcow2 a.qcow2; cksum a.qcow2'
same 'qemu-img convert -f raw a.raw nodir/x'
same 'qemu-img convert -f raw a.raw foo:x'
same "qemu-img convert a.raw 'json:{\"driver\":\"raw\",\"file.filename\":\"zz\"}'"
same 'qemu-img convert -n -f raw a.raw nofile'
same 'qemu-img convert -n -f raw a.raw s.raw'
same 'qemu-img convert -n -f raw -O qcow2 -o cluster_size=4k a.raw a.qcow2'
same 'qemu-img convert -f raw --target-image-opts a.raw driver=raw,file.filename=s.raw'
same 'qemu-img convert --target-image-opts -O raw -n a.raw b'
same 'qemu-img convert -f raw --target-is-zero a.raw x'
same 'qemu-img convert -n --target-is-zero -B a.raw -F raw -f raw -O qcow2 a.raw a.qcow2'
same 'qemu-img convert -f raw -O raw -c a.raw x'
same 'qemu-img convert -c -n a.raw s.raw'
same 'qemu-img convert -f raw -O qcow2 -c -o preallocation=full a.raw x'
same 'qemu-img convert -f raw -O qcow2 -c -o preallocation=x a.raw x'
same 'qemu-img convert -f raw -O qcow2 -c -o encryption=on a.raw x'
same 'qemu-img convert -f raw -C -c -O qcow2 a.raw x'
same 'qemu-img convert -f raw -C -S 4k a.raw x'
same 'qemu-img convert -f raw -C --salvage a.raw x'
same 'qemu-img convert -f raw -S 100 a.raw x'
same 'qemu-img convert -f raw -m 17 a.raw x'
same 'qemu-img convert -f raw -r fast a.raw x'
same 'qemu-img convert -f raw -t fast a.raw x'
same 'qemu-img convert -f raw -T fast a.raw x'
same 'qemu-img convert -T fast nofile x'
same 'qemu-img convert -O bogus nofile x'
same 'qemu-img convert -f raw -O qcow2 -o bogus=1 a.raw x'
same 'qemu-img convert -f raw -O qcow2 -o size=abc a.raw x'
same 'qemu-img convert -f raw -O qcow2 -o cluster_size=3 a.raw x'
same 'qemu-img convert -f raw -O qcow2 -o preallocation=x a.raw x'
same 'qemu-img convert -f raw -O qcow2 -B a.qcow2 a.raw x'
same 'qemu-img convert -f raw -O qcow2 -o backing_file=a.raw a.raw x'
same 'qemu-img convert -f raw -O qcow2 -B nofile -F raw a.raw x'
same 'qemu-img convert -f raw -O qcow2 -F bogus -B a.raw a.raw x'
same 'qemu-img convert -f raw -O qcow2 -F raw a.raw x'
same 'qemu-img convert -f raw -B a.raw -F raw a.raw x'
same 'qemu-img convert -f raw -F raw a.raw x'
same 'qemu-img convert -f raw -O qcow2 -B a.raw -F raw a.raw a.raw x'
same 'qemu-img convert -l nosuch a.qcow2 x'
same 'qemu-img convert -l snapshot.foo=1 a.qcow2 x'
same 'qemu-img convert -l s a.qcow2 a.qcow2 x'
same 'qemu-img convert --skip-broken-bitmaps a.qcow2 x'
same 'qemu-img convert --bitmaps a.raw a.raw x'
same 'qemu-img convert --bitmaps -c -O raw a.raw x'
same 'qemu-img convert -O raw -o help'
same 'qemu-img convert -O raw -o help a.raw x'
same 'qemu-img convert -O bogus -o help a.raw x'
same 'qemu-img convert --image-opts -f raw a b'
same 'qemu-img convert a.raw out.raw -O qcow2 && qemu-img info out.raw | head -3'
same 'qemu-img convert a.raw x && cmp a.raw x && stat -c %s x'
same 'qemu-img convert a.raw a.raw x && cksum x'
same 'qemu-img convert odd x && stat -c %s x && cksum x'
same 'qemu-img convert -C a.raw x && cksum x'
same 'qemu-img convert -O file a.raw x && cksum x'
same 'qemu-img convert -t writethrough a.raw x && cksum x'
same 'qemu-img convert -W -m 16 a.raw x && cksum x'
same 'qemu-img convert -S 0 a.raw x && cksum x && stat -c %b x'
same 'qemu-img convert -r 100M a.raw x && cksum x'
same 'qemu-img convert -U a.raw x && cksum x'
same 'qemu-img convert -n a.raw big; truncate -s 2M big && qemu-img convert -n a.raw big && cksum big'
same 'qemu-img convert -n -O qcow2 a.raw a.qcow2 && qemu-img compare a.raw a.qcow2'
same 'qemu-img convert --target-image-opts -n a.raw driver=qcow2,file.filename=a.qcow2 && qemu-img compare a.raw a.qcow2'
same 'qemu-img convert --image-opts driver=raw,file.filename=a.raw x && cksum x'
same 'qemu-img convert -O qcow2 a.raw x && qemu-img map --output=json x | sed "s/, .offset.*}/}/" && qemu-img check x | head -1'
same 'qemu-img convert -c -O qcow2 a.raw x && qemu-img map --output=json x | sed "s/, .offset.*}/}/" && qemu-img compare a.raw x'
same 'qemu-img convert -O qcow2 -B a.raw -F raw a.raw x && qemu-img compare a.raw x'
same 'qemu-img convert -S 0 -O qcow2 a.raw x && qemu-img map --output=json x | sed "s/, .offset.*}/}/"'
same 'qemu-img convert -p -q a.raw x'
same 'qemu-img convert -p nofile x'
same 'qemu-img convert -p -T fast a b'
same 'qemu-img convert -p a'
same 'qemu-img convert -O qcow2 a.raw x && stat -c %a x'
same 'qemu-img convert -f raw -l s a.raw x'
same 'qemu-img convert --bitmaps -f raw -O qcow2 a.raw x'
differs stderr 'the cache mode is looked at before files are opened' 'qemu-img convert -t fast nofile x'
differs stdout 'a target that did not become complete is removed' 'qemu-img convert -O qcow2 -B nofile -F raw a.raw x; echo x*'

setup_map() {
  qemu-img create -q -f qcow2 e.qcow2 1M
  truncate -s 1M a.raw
  head -c 65536 /dev/urandom | dd of=a.raw conv=notrunc
  qemu-img convert -O qcow2 a.raw a.qcow2
  yes | head -c 65536 >y.raw
  qemu-img convert -c -O qcow2 y.raw c.qcow2
  qemu-img create -q -f qcow2 -b a.qcow2 -F qcow2 o.qcow2 2M
  qemu-img create -q -f qcow2 -o preallocation=metadata p.qcow2 1M
  truncate -s 0 z.raw
}

group map
for image in e.qcow2 a.raw a.qcow2 c.qcow2 o.qcow2 p.qcow2 z.raw; do
  same "qemu-img map $image"
  same "qemu-img map --output=json $image"
  same "qemu-img map --output=json -s 1k -l 96k $image"
  same "qemu-img map --output=json -U --start-offset=4M $image"
  same "qemu-img map --max-length=0 --output=json $image"
  same "qemu-img map --max-length=0 $image"
done
same 'qemu-img map -s 1k -l 1k --output=json a.raw'
same "qemu-img map --output=json 'json:{\"driver\":\"qcow2\",\"backing\":null,\"file\":{\"driver\":\"file\",\"filename\":\"o.qcow2\"}}'"
same 'qemu-img map --image-opts driver=qcow2,file.filename=o.qcow2,backing.driver=qcow2,backing.file.filename=e.qcow2'

# Patches an image: file, offset, bytes as printf takes them.
poke() { printf "$3" | dd of="$1" bs=1 seek="$2" conv=notrunc; }
put64() { poke "$1" "$2" "$(printf %016x "$3" | sed 's/../\\x&/g')"; }
get64() { od -An -tu8 --endian=big -j "$2" -N 8 "$1" | tr -d ' '; }

# A copy of an image with one table entry replaced: name, level (l1, l2, refcounts), index, entry.
damage() {
  local table
  cp --sparse=auto "$image" "$1"
  case $2 in
    l1) table=$(get64 "$image" 40) ;;
    l2) table=$(($(get64 "$image" "$(get64 "$image" 40)") & 0xfffffffffffe00)) ;;
    refcounts) table=$(get64 "$image" 48) ;;
  esac
  put64 "$1" $((table + $3 * 8)) "$4"
}

copied=$((1 << 63))

setup_damaged_map() {
  # Five clusters of data, five of stored zeros, five of data; data in another L2 table.
  truncate -s 4M a.raw
  yes | head -c 20480 | dd of=a.raw conv=notrunc
  yes | head -c 20480 | dd of=a.raw bs=4096 seek=10 conv=notrunc
  qemu-img convert -S 0 -O qcow2 -o cluster_size=4k a.raw image
  image=image
  damage l2-unaligned l2 7 $((copied + 0x9200))
  damage l2-far l2 7 $((copied + (1 << 40)))
  damage l2-at-end l2 7 $((copied + ($(stat -c %s image) + 4095) / 4096 * 4096))
  damage l2-last l2 7 $((copied + ($(stat -c %s image) - 1) / 4096 * 4096))
  damage l1-far l1 0 $((copied + (1 << 40)))
  damage l1-unaligned l1 1 $((copied + 0x9200))
  damage l1-no-table l1 0 $copied
  for cut in 1 511 4095 5000; do
    cp image "cut-$cut" && truncate -s -$cut "cut-$cut"
  done
  cp --sparse=always image holes
  image=holes
  damage holes-l2-far l2 2 $((copied + (1 << 40)))
  damage holes-refcounts-unaligned refcounts 0 8704
  damage holes-refcounts-gone refcounts 0 0
  damage holes-refcounts-far refcounts 0 $((1 << 40))
  cp --sparse=auto holes holes-dirty && poke holes-dirty 79 '\001'
  cp --sparse=auto holes holes-cut && truncate -s -700 holes-cut
  damage refcounts-unaligned refcounts 0 8704
  cp a.raw b.raw && printf x | dd of=b.raw bs=1 seek=3M conv=notrunc
  for hole in 1 2 3; do
    qemu-img convert -O qcow2 -o cluster_size=4k b.raw "one-$hole" &&
      fallocate -p -o 32768 -l $((hole * 4096)) "one-$hole"
  done
  qemu-img create -q -f qcow2 -u -b l2-unaligned -F qcow2 overlay 5M
}

group damaged_map
for image in image l2-{unaligned,far,at-end,last} l1-{far,unaligned,no-table} cut-{1,511,4095,5000} \
  holes holes-{l2-far,refcounts-unaligned,refcounts-gone,refcounts-far,dirty,cut} refcounts-unaligned one-{1,2,3} overlay; do
  same "qemu-img map $image"
  same "qemu-img map --output=json $image"
done

setup_check() {
  truncate -s 1M a.raw
  yes | head -c 65536 | dd of=a.raw conv=notrunc
  qemu-img convert -O qcow2 a.raw a.qcow2
  # The first refcount block is at 128k; entries have two bytes. Cluster 5 holds the data, 6 is not used.
  cp a.qcow2 leak.qcow2 && poke leak.qcow2 $((131072 + 12)) '\0\001' && truncate -s $((7 * 65536)) leak.qcow2
  cp a.qcow2 bad.qcow2 && poke bad.qcow2 $((131072 + 10)) '\0\0'
  cp leak.qcow2 both.qcow2 && poke both.qcow2 $((131072 + 10)) '\0\0'
  # The L2 table is at 256k.
  cp a.qcow2 l2.qcow2 && poke l2.qcow2 $((262144 + 6)) '\002\0'
  cp a.qcow2 past.qcow2 && poke past.qcow2 $((262144 + 8)) '\200\0\0\0\0\120\0\0'
  image=leak.qcow2
  damage lost.qcow2 l1 0 $((copied + (1 << 40)))
  image=a.qcow2
  damage block-far.qcow2 refcounts 1 $((1 << 40))
  damage block-behind.qcow2 refcounts 0 $((1 << 63))
  damage block-unaligned.qcow2 refcounts 0 $((131072 + 512))
  # No backing file, at an impossible place.
  cp a.qcow2 back.qcow2 && put64 back.qcow2 8 1
  # A bitmap at 512 bytes a bit takes one cluster for 256 MiB of disk.
  cp a.qcow2 bitmap.qcow2 && qemu-img bitmap --add -g 512 bitmap.qcow2 b
  extension=$(LC_ALL=C grep -abo "$(printf '\x23\x85\x28\x75')" bitmap.qcow2 | head -1 | cut -d: -f1)
  directory=$(get64 bitmap.qcow2 $((extension + 24)))
  for entries in 0 2; do
    cp bitmap.qcow2 bitmap-$entries.qcow2 && poke bitmap-$entries.qcow2 $((directory + 8)) "\0\0\0\00$entries"
    cp bitmap-$entries.qcow2 bitmap-$entries-used.qcow2 && poke bitmap-$entries-used.qcow2 $((directory + 15)) '\001'
  done
  cp bitmap.qcow2 bitmap-grown.qcow2 && put64 bitmap-grown.qcow2 24 $(((256 << 20) + 512))
}

group check
for image in a leak bad both l2 past lost block-{far,behind,unaligned} back bitmap bitmap-{grown,0,2,0-used,2-used}; do
  same "qemu-img check $image.qcow2"
  same "qemu-img check -q $image.qcow2"
  same "qemu-img check --output=json $image.qcow2"
done
for image in back bitmap bitmap-{grown,0,2,0-used,2-used}; do
  same "qemu-img info $image.qcow2 | grep -v '^disk size'"
done
for mode in leaks all; do
  differs stdout,stderr 'what a lost table may refer to is not freed' "qemu-img check -r $mode lost.qcow2"
done
same 'qemu-img check -r leaks block-far.qcow2'
differs stdout,stderr 'the file does not grow to where the block was to be' 'qemu-img check -r all block-far.qcow2'
differs stderr 'nor does it here, where this is not possible' 'qemu-img check -r all block-behind.qcow2'
differs stdout,stderr,exit 'more is repaired, and the image is not marked' 'qemu-img check -r all block-unaligned.qcow2'
same 'qemu-img check -r leaks leak.qcow2'
same 'qemu-img check -r leaks --output=json leak.qcow2'
same 'qemu-img check -r all leak.qcow2; qemu-img check leak.qcow2'
same 'qemu-img check -q -r all leak.qcow2'
same 'qemu-img check -r all a.qcow2'
same 'qemu-img check -T none -U a.qcow2'
same 'qemu-img check --image-opts driver=qcow2,file.filename=leak.qcow2'

setup_snapshot() {
  qemu-img create -q -f qcow2 a.qcow2 1M
  qemu-io -c 'write -P 1 0 256k' a.qcow2
  qemu-img snapshot -c one a.qcow2
  qemu-img snapshot -c a-rather-long-name a.qcow2
  qemu-io -c 'write -P 2 128k 256k' a.qcow2
  qemu-img create -q -f qcow2 none.qcow2 1M
  truncate -s 1M a.raw
  qemu-img create -q -f qcow2 -o compat=0.10 v2.qcow2 1M
  qemu-img create -q -f qcow2 -o refcount_bits=1 one.qcow2 1M
  qemu-io -c 'write -P 1 0 256k' one.qcow2
}
group snapshot
# Two lists made in the same second; their date is not looked at.
list='| sed "s/....-..-.. ..:..:../DATE/"'
same 'qemu-img snapshot'
same 'qemu-img snapshot -l'
same 'qemu-img snapshot a.qcow2 b.qcow2'
same 'qemu-img snapshot -l -c x a.qcow2'
same 'qemu-img snapshot -c x -c y a.qcow2'
same 'qemu-img snapshot -a x -d y a.qcow2'
same 'qemu-img snapshot a.qcow2'
same 'qemu-img snapshot none.qcow2'
same 'qemu-img snapshot -l a.qcow2'
same 'qemu-img snapshot -l none.qcow2'
same 'qemu-img snapshot -l a.raw'
same 'qemu-img snapshot -l nofile'
same 'qemu-img snapshot -U -l a.qcow2'
same 'qemu-img snapshot -U -c x a.qcow2'
same 'qemu-img snapshot -q -l a.qcow2'
same 'qemu-img snapshot --image-opts -l driver=qcow2,file.filename=a.qcow2'
same 'qemu-img snapshot -f qcow2 -l a.qcow2'
same "qemu-img snapshot -c new a.qcow2; qemu-img snapshot -l a.qcow2 $list"
same "qemu-img snapshot -c '' a.qcow2; qemu-img snapshot -l a.qcow2 $list"
same "qemu-img snapshot -c 1 a.qcow2; qemu-img snapshot -l a.qcow2 $list; qemu-img snapshot -a 1 a.qcow2; qemu-img check a.qcow2"
same "qemu-img snapshot -c \$(printf %0300d 7) a.qcow2; qemu-img snapshot -l a.qcow2 $list"
same "qemu-img snapshot -d one a.qcow2; qemu-img snapshot -c next a.qcow2; qemu-img snapshot -l a.qcow2 $list"
same 'qemu-img snapshot -d 1 a.qcow2'
same 'qemu-img snapshot -d nosuch a.qcow2'
same 'qemu-img snapshot -a nosuch a.qcow2'
same 'qemu-img snapshot -a one a.qcow2 && qemu-img check a.qcow2 && qemu-img map --output=json a.qcow2'
same 'qemu-img snapshot -a 2 a.qcow2 && qemu-img check a.qcow2'
same 'qemu-img snapshot -d one a.qcow2 && qemu-img snapshot -d a-rather-long-name a.qcow2 && qemu-img check a.qcow2'
same 'qemu-img snapshot -c x a.raw'
differs stderr 'the warning comes once' 'qemu-img snapshot -a x a.raw'
same 'qemu-img snapshot -d x a.raw'
same 'qemu-img snapshot -c x one.qcow2'
same 'qemu-img snapshot -c x v2.qcow2 && qemu-img check v2.qcow2'
same 'qemu-img convert -l one -O raw a.qcow2 x && qemu-img compare a.qcow2 x'
same 'qemu-img convert -l 2 -O raw a.qcow2 x && cksum x'
same 'qemu-img convert -l nosuch -O raw a.qcow2 x'
same 'qemu-img convert -l snapshot.id=1,snapshot.name=one -O raw a.qcow2 x && cksum x'
same 'qemu-img convert -l snapshot.id=2,snapshot.name=one -O raw a.qcow2 x'
same 'qemu-img convert -l one -O raw a.qcow2 a.qcow2 x'
same 'qemu-img convert -l one -O raw none.qcow2 x'

setup_resize() {
  qemu-img create -q a.raw 1M
  printf x | dd of=a.raw bs=1 seek=70000 conv=notrunc
  qemu-img create -q -f qcow2 a.qcow2 1M
  qemu-io -c 'write -P 1 0 1M' a.qcow2
  qemu-img create -q -f qcow2 -b a.qcow2 -F qcow2 o.qcow2 512k
  qemu-img create -q -f qcow2 -o compat=0.10 v2.qcow2 1M
  qemu-img snapshot -c s v2.qcow2
  qemu-img create -q -f qcow2 s.qcow2 1M
  qemu-io -c 'write -P 1 0 1M' s.qcow2
  qemu-img snapshot -c s s.qcow2
  cp a.qcow2 cor.qcow2 && poke cor.qcow2 79 '\002'
  qemu-img create -q -f qcow2 -u -b nofile -F raw gone.qcow2 1M
}

group resize
# What became of an image, but for where in the file its clusters are.
after='; qemu-img info a.qcow2 | grep virtual; qemu-img map --output=json a.qcow2 | sed "s/, .offset.*}/}/"; qemu-img check a.qcow2 | head -1'
same 'qemu-img resize'
same 'qemu-img resize x'
same 'qemu-img resize -h'
same 'qemu-img resize a b c'
same 'qemu-img resize a.qcow2 2M --shrink'
same 'qemu-img resize --bogus a.qcow2 2M'
same 'qemu-img resize -U a.qcow2 2M'
same 'qemu-img resize a.qcow2 -h'
same 'qemu-img resize -f'
same 'qemu-img resize -f 2M'
same 'qemu-img resize --preallocation=lots'
same 'qemu-img resize --preallocation=lots a.qcow2 2M'
same 'qemu-img resize --preallocation= a.qcow2 2M'
same 'qemu-img resize --preallocation=lots a.qcow2 x'
same 'qemu-img resize -f bogus a.qcow2 2M'
same 'qemu-img resize nofile 2M'
same 'qemu-img resize nofile x'
same 'qemu-img resize cor.qcow2 2M'
same 'qemu-img resize gone.qcow2 2M'
same 'qemu-img resize --object secret a.qcow2 2M'
same 'qemu-img resize --image-opts -f raw a.raw 2M'
for size in "''" + - +-1 ++1 --1 ' 2M' '+ 1M' 2MB big 1.5x 16E +16E 8E +8E -8E 1E 0 -1M -2M 0x200k -0x2k 1048577 +1 1.5M +0 -0; do
  same "qemu-img resize a.qcow2 $size"
  same "qemu-img resize a.qcow2 '$size'; qemu-img info a.qcow2 | grep virtual"
  same "qemu-img resize --shrink -f raw a.raw '$size'; stat -c %s a.raw"
done
same 'qemu-img resize a.raw 8E'
same 'qemu-img resize a.raw 2M; stat -c "%s %b" a.raw; cksum a.raw'
same 'qemu-img resize -q -f raw a.raw 2M'
same 'qemu-img resize -f raw a.raw 7E'
same 'qemu-img resize -f raw a.raw 1048577; stat -c %s a.raw; qemu-img resize -f raw a.raw +1; stat -c %s a.raw'
same 'qemu-img resize -f raw a.raw 1M'
same 'qemu-img resize -f raw a.raw 512k; stat -c %s a.raw'
same 'qemu-img resize --shrink -f raw a.raw 512k; stat -c %s a.raw; cksum a.raw'
same 'qemu-img resize -f file a.raw 2M; stat -c %s a.raw'
same 'qemu-img resize --image-opts driver=raw,size=512,file.filename=a.raw 2M'
same 'qemu-img resize --image-opts driver=qcow2,file.filename=a.qcow2 2M'
for mode in off metadata falloc full; do
  same "qemu-img resize --preallocation=$mode -f raw a.raw 2M; stat -c '%s %b' a.raw; cksum a.raw"
  same "qemu-img resize --preallocation=$mode -f raw a.raw 1M"
  same "qemu-img resize --preallocation=$mode --shrink -f raw a.raw 512k"
  same "qemu-img resize --preallocation=$mode a.qcow2 512k"
  same "qemu-img resize --preallocation=$mode a.qcow2 3M; qemu-img check a.qcow2 | head -1; qemu-img convert -O raw a.qcow2 x; cksum x"
  same "qemu-img resize --preallocation=$mode s.qcow2 600M; qemu-img check s.qcow2 | head -1"
done
same "qemu-img resize a.qcow2 5G $after"
same "qemu-img resize --preallocation=metadata a.qcow2 3M $after"
same "qemu-img resize -q a.qcow2 +1536 $after"
same "qemu-img resize a.qcow2 512k $after"
same "qemu-img resize --shrink a.qcow2 -512k $after"
same "qemu-img resize --shrink a.qcow2 100k $after"
same "qemu-img resize --preallocation off --shrink a.qcow2 100k"
same 'qemu-img resize o.qcow2 2M; qemu-img convert -O raw o.qcow2 x; cksum x'
same 'qemu-img resize --preallocation=metadata o.qcow2 2M; qemu-img convert -O raw o.qcow2 x; cksum x'
same 'qemu-img resize v2.qcow2 2M'
same 'qemu-img resize s.qcow2 2M; qemu-img snapshot -a s s.qcow2; qemu-img info s.qcow2 | grep virtual'

setup_measure() {
  truncate -s 1M a.raw
  head -c 70000 /dev/urandom | dd of=a.raw conv=notrunc bs=1000 seek=100
  qemu-img create -q -f qcow2 a.qcow2 1M
  qemu-io -c 'write -P 1 0 128k' -c 'write -z 256k 64k' -c 'write -P 2 1000k 10k' a.qcow2
  qemu-img create -q -f qcow2 -b a.qcow2 -F qcow2 o.qcow2 2M
  qemu-io -c 'write -P 2 512k 64k' -c 'write -z 64k 64k' -c 'write -P 3 1300k 1k' o.qcow2
  qemu-img convert -c -O qcow2 a.qcow2 c.qcow2
  qemu-img snapshot -c one a.qcow2
  qemu-img create -q -f qcow2 -o compat=0.10 v2.qcow2 1M
  qemu-img create -q -f qcow2 bm.qcow2 1G
  qemu-img bitmap --add bm.qcow2 b0
  qemu-img bitmap --add -g 512 bm.qcow2 b1
  qemu-img bitmap --add -g 4k bm.qcow2 a-longer-name
  printf 12345 >odd
}

group measure
same 'qemu-img measure'
same 'qemu-img measure a b'
same 'qemu-img measure --size 1 x y'
same 'qemu-img measure -f raw'
same 'qemu-img measure --image-opts'
same 'qemu-img measure -l x'
same 'qemu-img measure -U'
same 'qemu-img measure --size x'
same 'qemu-img measure --size x --output=x'
same 'qemu-img measure --output=x --size x'
same 'qemu-img measure --size 8E'
same 'qemu-img measure --size 0x2k'
same 'qemu-img measure --size 1M a.raw'
same 'qemu-img measure --size 1M -f raw'
same 'qemu-img measure --size 1M -l x'
same 'qemu-img measure --size 1M -l snapshot.foo=1'
same 'qemu-img measure --size 1M --image-opts'
same 'qemu-img measure --size 1M -U'
same 'qemu-img measure --size 1M --size 2M'
same 'qemu-img measure --object secret --size 1'
same 'qemu-img measure --size 1M -O qcow2 -o ""'
same 'qemu-img measure --size 1M -O qcow2 -o help'
for size in 0 1 511 513 1M 100M 1G 1000000001 2P 7E; do
  same "qemu-img measure --size $size"
  same "qemu-img measure --size $size --output=json"
  for options in '' cluster_size=512 cluster_size=4k cluster_size=2M refcount_bits=1 refcount_bits=64,cluster_size=1k extended_l2=on,cluster_size=128k; do
    same "qemu-img measure --size $size -O qcow2 ${options:+-o $options}"
  done
done
for options in bogus=1 size=bogus size=16E size=2M cluster_size=3 cluster_size=abc preallocation=x preallocation=off \
  preallocation=metadata preallocation=falloc preallocation=full preallocation= backing_file=x backing_fmt=raw \
  compat=0.10 compat=1.1 compat=xx compat=0.10,lazy_refcounts=on refcount_bits=3 refcount_bits=8,compat=0.10 \
  refcount_bits=3,compat=xx refcount_bits=3,cluster_size=3 compat=xx,cluster_size=3 preallocation=x,cluster_size=3 \
  preallocation=x,refcount_bits=3 preallocation=x,compat=xx extended_l2=on,cluster_size=4k extended_l2=on,compat=0.10 \
  extended_l2=on,cluster_size=4k,compat=xx compression_type=lz4 data_file_raw=on data_file=x \
  encrypt.format=luks encrypt.format=xx encrypt.format=aes encrypt.format=luks,preallocation=x lazy_refcounts=maybe; do
  same "qemu-img measure --size 1M -O qcow2 -o $options"
  same "qemu-img measure -O qcow2 -o $options a.qcow2"
  same "qemu-img measure -O qcow2 -o $options nofile"
done
same 'qemu-img measure --size 9223372036854775807'
differs stdout 'the number does not wrap' 'qemu-img measure --size 9223372036854775807 --output=json'
differs stdout,stderr,exit 'create takes this spelling' 'qemu-img measure --size 1M -O qcow2 -o compat=v3'
same 'qemu-img measure --size 1M -O raw -o preallocation=bogus'
same 'qemu-img measure --size 1M -O raw -o cluster_size=4k'
same 'qemu-img measure --size 1M -O raw -o size=7'
same 'qemu-img measure --size 1M -O bogus'
same 'qemu-img measure --size 1M -O file'
same 'qemu-img measure --size 1E -O qcow2'
same 'qemu-img measure -O bogus nofile'
same 'qemu-img measure -O bogus a.raw'
same 'qemu-img measure --image-opts -f raw x'
for image in a.raw a.qcow2 o.qcow2 c.qcow2 v2.qcow2 bm.qcow2 odd; do
  same "qemu-img measure $image"
  same "qemu-img measure -O raw --output=json $image"
  for options in '' cluster_size=512 cluster_size=4k cluster_size=2M compat=0.10 preallocation=full; do
    same "qemu-img measure -O qcow2 ${options:+-o $options} $image"
    same "qemu-img measure -U -O qcow2 ${options:+-o $options} --output=json $image"
  done
done
same 'qemu-img measure -l one -O qcow2 a.qcow2'
same 'qemu-img measure -l 1 a.qcow2'
same 'qemu-img measure -l snapshot.name=one -O qcow2 a.qcow2'
same 'qemu-img measure -l nosuch a.qcow2'
same 'qemu-img measure -l nosuch -O bogus a.qcow2'
same 'qemu-img measure -l "" a.qcow2'
same 'qemu-img measure -l x -f raw a.raw'
same 'qemu-img measure --image-opts driver=raw,file.filename=a.raw'
same 'qemu-img measure --bogus | grep -c "^  measure "'
same 'qemu-img measure -p | grep -c "^  measure "'
same 'qemu-img measure -O | grep -c "^  measure "'
same 'qemu-img measure --size | grep -c "^  measure "'
same 'qemu-img measure --image-opts=x | grep -c "^  measure "'
same 'qemu-img measure --size x --bogus'
# What convert then makes: where all is stored, to the byte; else no more than was said.
same 'qemu-img convert -S 0 -O qcow2 a.raw x && stat -c %s x && qemu-img measure -O qcow2 a.raw'
same 'qemu-img convert -S 0 -O qcow2 -o cluster_size=4k o.qcow2 x && stat -c %s x && qemu-img measure -O qcow2 -o cluster_size=4k o.qcow2'
for options in cluster_size=64k cluster_size=4k cluster_size=512 cluster_size=2M; do
  same "qemu-img convert -O qcow2 -o $options o.qcow2 x && stat -c %s x && qemu-img measure -O qcow2 -o $options o.qcow2"
done

setup_dd() {
  truncate -s 1M a.raw
  head -c 70000 /dev/urandom | dd of=a.raw conv=notrunc bs=1000 seek=100
  qemu-img convert -O qcow2 a.raw a.qcow2
  qemu-img convert -c -O qcow2 a.raw c.qcow2
  qemu-img create -q -f qcow2 -b a.qcow2 -F qcow2 o.qcow2
  qemu-io -c 'write -P 2 512k 64k' o.qcow2
  printf 12345 >odd
  cp a.qcow2 bad.qcow2 && poke bad.qcow2 $((262144 + 14)) '\002\0'
  yes | head -c 4M >big.raw
}

group dd
shown='; stat -c "%s %b" b; cksum b'
same 'qemu-img dd'
same 'qemu-img dd x'
same "qemu-img dd ''"
same 'qemu-img dd if=a.raw'
same 'qemu-img dd of=b'
same 'qemu-img dd if= of=b'
same 'qemu-img dd nonsense if=a.raw of=b'
same 'qemu-img dd seek=1 if=a.raw of=b'
same 'qemu-img dd =1 if=a.raw of=b'
same 'qemu-img dd if=a.raw of=b extra'
for operand in bs bs= bs=0 bs=2G bs=x bs=-1 'bs =1' count=-1 count=x count=1k=2 count=8E skip=x skip=-1; do
  same "qemu-img dd '$operand' if=a.raw of=b"
done
same 'qemu-img dd -p if=a.raw of=b'
same 'qemu-img dd -n if=a.raw of=b'
same 'qemu-img dd -f bogus if=a.raw of=b'
same 'qemu-img dd -O bogus if=a.raw of=b'
same 'qemu-img dd -O bogus if=nofile of=b'
same 'qemu-img dd if=nofile of=b'
same 'qemu-img dd if=json:{} of=b'
same 'qemu-img dd if=a.raw of=nodir/b'
same 'qemu-img dd if=a.raw of=foo:b'
same 'qemu-img dd if=a.raw of=.'
same 'qemu-img dd if=a.qcow2 of=a.qcow2; cksum a.qcow2'
same 'qemu-img dd --object x if=a of=b'
same 'qemu-img dd --image-opts -f raw if=x of=b'
same "qemu-img dd if=a.raw if=odd of=b $shown"
same "qemu-img dd bs=0x10k if=a.raw of=b $shown"
same "qemu-img dd -- if=a.raw of=b $shown"
same "qemu-img dd -U -f raw if=a.raw of=b $shown"
same "qemu-img dd -O file if=a.raw of=b $shown"
same "qemu-img dd --image-opts if=driver=qcow2,file.filename=a.qcow2 of=b $shown"
for input in a.raw a.qcow2 c.qcow2 o.qcow2 odd; do
  for operands in '' bs=1M 'bs=64k count=4' 'bs=1k count=3 skip=1' 'bs=1M skip=1' 'bs=1M skip=2' count=0 'count=7E bs=1M' \
    'skip=7E bs=1M' 'bs=1000 count=200 skip=150' 'bs=511 skip=1' 'bs=513 skip=1' 'skip=1' 'skip=3 count=2' \
    'bs=77777 skip=3'; do
    same "qemu-img dd $operands if=$input of=b $shown"
  done
  same "qemu-img dd -O qcow2 bs=3000 skip=7 if=$input of=b; qemu-img check b | head -1; qemu-img map --output=json b | sed 's/, .offset.*}/}/'; qemu-img convert -O raw b x; cksum x"
done
for operands in 'bs=1 skip=511' 'bs=1 skip=512' 'bs=1 skip=513' 'bs=2 skip=2' 'bs=3 count=1'; do
  same "qemu-img dd $operands if=odd of=b $shown"
done
same 'qemu-img dd if=bad.qcow2 of=b'
same '(ulimit -f 1024; qemu-img dd -O qcow2 bs=64k if=big.raw of=b)'
differs stderr 'the empty name is refused in the words of all commands' 'qemu-img dd if=a.raw of='
differs exit,stderr,stdout 'an input is not overwritten with zeros' 'qemu-img dd -f raw if=a.raw of=a.raw; cksum a.raw'

setup_rebase() {
  qemu-img create -q -f qcow2 b1.qcow2 1M
  qemu-img create -q -f qcow2 b2.qcow2 1M
  qemu-img create -q -f qcow2 s.qcow2 512k
  qemu-io -c 'write -P 1 0 256k' -c 'write -P 7 900k 100k' b1.qcow2
  qemu-io -c 'write -P 2 0 64k' -c 'write -P 1 64k 64k' -c 'write -z 256k 64k' b2.qcow2
  qemu-img create -q -f qcow2 -b b1.qcow2 -F qcow2 m.qcow2
  qemu-io -c 'write -P 3 128k 64k' -c 'write -P 1 0 64k' m.qcow2
  qemu-img create -q -f qcow2 -b m.qcow2 -F qcow2 o.qcow2
  qemu-io -c 'write -P 4 192k 4k' o.qcow2
  qemu-img create -q -f qcow2 -b b1.qcow2 -F qcow2 -o cluster_size=4k small.qcow2 2M
  qemu-io -c 'write -P 4 10k 1k' -c 'write -P 5 1200k 4k' small.qcow2
  qemu-img create -q -f qcow2 -b b1.qcow2 -F qcow2 -o compat=0.10 v2.qcow2
  truncate -s 1M r.raw
  yes | head -c 300000 | dd of=r.raw conv=notrunc
  qemu-img create -q -f qcow2 -u -b nofile -F raw gone.qcow2 1M
  cp b2.qcow2 bad.qcow2 && poke bad.qcow2 $((262144 + 6)) '\002\0'
  qemu-img create -q -f qcow2 -b bad.qcow2 -F qcow2 onbad.qcow2
  mkdir d
  qemu-img create -q -f qcow2 -b ../b1.qcow2 -F qcow2 d/t.qcow2
}

group rebase
same '(ulimit -f 512; qemu-img rebase -b s.qcow2 -F qcow2 o.qcow2); qemu-img info o.qcow2 | grep backing'
# What an image shows and where it has it from; its name is $1.
shows() { echo "; qemu-img convert -O raw $1 x; cksum x; qemu-img info $1 | grep backing; qemu-img check $1 | head -1"; }
same 'qemu-img rebase'
same 'qemu-img rebase x'
same 'qemu-img rebase -b y'
same 'qemu-img rebase -b y a b'
same 'qemu-img rebase -u'
same 'qemu-img rebase -u a b'
same 'qemu-img rebase -t bad -b x y'
same 'qemu-img rebase -T bad -b x y'
same 'qemu-img rebase -t bad -T bad -b x y'
same 'qemu-img rebase -t bad nofile'
same 'qemu-img rebase -p -t bad -b x y'
same 'qemu-img rebase -p -T bad -b x y'
same 'qemu-img rebase -u nofile'
same 'qemu-img rebase -b x nofile'
same 'qemu-img rebase -p -b x nofile'
same 'qemu-img rebase -p x'
same 'qemu-img rebase -f bogus -b b2.qcow2 -F qcow2 o.qcow2'
same 'qemu-img rebase --image-opts -f qcow2 -b b2.qcow2 o.qcow2'
same 'qemu-img rebase -b b2.qcow2 o.qcow2; qemu-img info o.qcow2 | grep backing'
same 'qemu-img rebase -b nofile o.qcow2'
same 'qemu-img rebase -b b2.qcow2 -F bogus o.qcow2'
same 'qemu-img rebase -b nofile -F bogus o.qcow2'
same 'qemu-img rebase -b nofile -F bogus nofile'
same 'qemu-img rebase -b nofile -F qcow2 o.qcow2'
same 'qemu-img rebase -b r.raw -F qcow2 o.qcow2'
same 'qemu-img rebase -b o.qcow2 -F qcow2 o.qcow2'
same 'qemu-img rebase -b o.qcow2 -F qcow2 m.qcow2'
same 'qemu-img rebase -b b1.qcow2 -F qcow2 gone.qcow2'
same 'qemu-img rebase -u -b b1.qcow2 -F qcow2 gone.qcow2; qemu-img info gone.qcow2 | grep backing'
same 'qemu-img rebase -u -b b1.qcow2 o.qcow2'
same 'qemu-img rebase -u -F bogus -b x o.qcow2'
same 'qemu-img rebase -u -F qcow2 o.qcow2; qemu-img info o.qcow2 | grep backing'
same 'qemu-img rebase -u -b nofile -F raw o.qcow2; qemu-img info o.qcow2 | grep backing'
same 'qemu-img rebase -u -b json:{} -F raw o.qcow2; qemu-img info o.qcow2 | grep backing'
same 'qemu-img rebase -u -b foo:x -F raw o.qcow2; qemu-img info o.qcow2 | grep backing'
same "qemu-img rebase -u -b '' o.qcow2; qemu-img info o.qcow2 | grep backing"
same 'qemu-img rebase -f raw -b b1.qcow2 -F qcow2 r.raw'
same 'qemu-img rebase -f raw -b b1.qcow2 r.raw'
same 'qemu-img rebase -f raw -u -b b1.qcow2 -F qcow2 r.raw'
same 'qemu-img rebase -f raw -u -b b1.qcow2 r.raw'
same 'qemu-img rebase -f raw -u r.raw'
same 'qemu-img rebase -u r.raw'
for length in 1023 1024 2000; do
  same "qemu-img rebase -u -b \$(printf %0${length}d 1) -F qcow2 o.qcow2; qemu-img info o.qcow2 | grep -c backing"
done
same 'qemu-img create -q -f qcow2 -o cluster_size=512 n.qcow2 1M; qemu-img rebase -u -b $(printf %0600d 1) -F qcow2 n.qcow2; qemu-img check n.qcow2'
same 'qemu-img rebase -p -u -b b2.qcow2 -F qcow2 o.qcow2'
same 'qemu-img rebase -p -q -b b2.qcow2 -F qcow2 o.qcow2'
for image in o.qcow2 m.qcow2 small.qcow2 v2.qcow2; do
  same "qemu-img rebase -b b2.qcow2 -F qcow2 $image $(shows $image)"
  same "qemu-img rebase -b r.raw -F raw $image $(shows $image)"
  same "qemu-img rebase -b '' $image $(shows $image)"
  same "qemu-img rebase -t none -T none -U -b b2.qcow2 -F qcow2 $image $(shows $image)"
  same "qemu-img rebase -u -b b2.qcow2 -F qcow2 $image $(shows $image)"
done
same "qemu-img rebase -b b1.qcow2 -F qcow2 o.qcow2 $(shows o.qcow2)"
same "qemu-img rebase -b b1.qcow2 -F qcow2 o.qcow2; qemu-img map --output=json o.qcow2"
same "qemu-img rebase -b b2.qcow2 -F qcow2 o.qcow2; qemu-img map --output=json o.qcow2 | sed 's/, .offset.*}/}/'"
same "qemu-img rebase -b m.qcow2 -F qcow2 o.qcow2 $(shows o.qcow2)"
same "qemu-img rebase -b b2.qcow2 -F qcow2 b1.qcow2 $(shows b1.qcow2)"
same "qemu-img rebase -b ../b2.qcow2 -F qcow2 d/t.qcow2 $(shows d/t.qcow2)"
same 'qemu-img rebase -b b2.qcow2 -F qcow2 d/t.qcow2'
same 'qemu-img rebase -b s.qcow2 -F qcow2 o.qcow2; qemu-img convert -O raw o.qcow2 x; cksum x; qemu-img info o.qcow2 | grep backing'
same "qemu-img rebase -F qcow2 -b '' o.qcow2 $(shows o.qcow2)"
same 'qemu-img rebase -b bad.qcow2 -F qcow2 o.qcow2; qemu-img info o.qcow2 | grep backing'
same 'qemu-img rebase -b b1.qcow2 -F qcow2 onbad.qcow2; qemu-img info onbad.qcow2 | grep backing'
same "qemu-img rebase --image-opts -b b2.qcow2 -F qcow2 driver=qcow2,file.filename=o.qcow2 $(shows o.qcow2)"

setup_commit() {
  setup_rebase
  qemu-io -c 'write -z 0 64k' -c 'write -P 9 300k 300k' o.qcow2
  qemu-img create -q -f qcow2 -b r.raw -F raw or.qcow2 2M
  qemu-io -c 'write -P 4 192k 4k' -c 'write -P 5 1536k 4k' or.qcow2
  qemu-img create -q -f qcow2 -b o.qcow2 -F qcow2 large.qcow2 3M
  qemu-io -c 'write -P 6 2M 64k' -c 'write -P 6 100k 1k' large.qcow2
  qemu-img create -q -f qcow2 -b large.qcow2 -F qcow2 short.qcow2 500k
  qemu-io -c 'write -P 8 400k 30k' short.qcow2
  qemu-img create -q -f qcow2 -b b1.qcow2 -F qcow2 snap.qcow2
  qemu-io -c 'write -P 8 400k 30k' snap.qcow2
  qemu-img snapshot -c one snap.qcow2
  qemu-io -c 'write -P 9 410k 80k' snap.qcow2
}

group commit
chain='; for i in short large o m b1; do qemu-img convert -O raw $i.qcow2 x; cksum x; qemu-img check $i.qcow2 | head -1; done'
same 'qemu-img commit'
same 'qemu-img commit a b'
same 'qemu-img commit nofile'
same 'qemu-img commit -p nofile'
same 'qemu-img commit b1.qcow2'
same 'qemu-img commit -p b1.qcow2'
same 'qemu-img commit -b x b1.qcow2'
same 'qemu-img commit -f raw r.raw'
same 'qemu-img commit r.raw'
same 'qemu-img commit gone.qcow2'
same 'qemu-img commit -U o.qcow2'
same 'qemu-img commit -t bad nofile'
same 'qemu-img commit -t bad'
same 'qemu-img commit -r x o.qcow2'
same 'qemu-img commit -r x -t bad o.qcow2'
same 'qemu-img commit --image-opts -f raw x'
same 'qemu-img commit -b other o.qcow2'
same 'qemu-img commit -p -b other o.qcow2'
same "qemu-img commit -b '' o.qcow2"
same 'qemu-img commit -b o.qcow2 o.qcow2'
same 'qemu-img commit -b b1.qcow2 d/t.qcow2'
same 'qemu-img commit -b ../b1.qcow2 d/t.qcow2'
same 'qemu-img commit -q o.qcow2'
same 'qemu-img commit -p -q o.qcow2'
same 'qemu-img commit -b ./m.qcow2 o.qcow2'
same 'qemu-img commit -b "$PWD/m.qcow2" o.qcow2'
for image in short large o m; do
  same "qemu-img commit $image.qcow2 $chain"
  same "qemu-img commit $image.qcow2; qemu-img map --output=json $image.qcow2 | grep -c '\"depth\": 0'; stat -c %s $image.qcow2"
  same "qemu-img commit -d $image.qcow2 $chain"
  same "qemu-img commit -d $image.qcow2; qemu-img map --output=json $image.qcow2 | grep -c '\"depth\": 0'"
  same "qemu-img commit -b b1.qcow2 $image.qcow2; qemu-img convert -O raw b1.qcow2 x; cksum x; qemu-img check b1.qcow2 | head -1"
  same "qemu-img commit -t none -r 100M $image.qcow2 $chain"
done
same 'qemu-img commit or.qcow2; stat -c %s r.raw; cksum r.raw; stat -c %s or.qcow2; qemu-img check or.qcow2'
same 'qemu-img commit -b m.qcow2 large.qcow2; qemu-img convert -O raw m.qcow2 x; cksum x; qemu-img info large.qcow2 | grep backing'
same 'qemu-img commit snap.qcow2; qemu-img check snap.qcow2 | head -1; qemu-img convert -O raw -l one snap.qcow2 x; cksum x; qemu-img convert -O raw snap.qcow2 x; cksum x; qemu-img snapshot -a one snap.qcow2; qemu-img convert -O raw snap.qcow2 x; cksum x'
same 'qemu-img commit v2.qcow2; qemu-img convert -O raw b1.qcow2 x; cksum x; qemu-img check v2.qcow2 | head -1'
same 'qemu-img commit small.qcow2; qemu-img convert -O raw b1.qcow2 x; cksum x; qemu-img check small.qcow2; qemu-img info b1.qcow2 | grep virtual'
same 'qemu-img commit onbad.qcow2'
differs stderr 'the same words as for reading' 'qemu-io -c "write 0 64k" onbad.qcow2 >/dev/null; qemu-img commit onbad.qcow2'
same 'truncate -s 5M r.raw; qemu-img create -q -f qcow2 -b s.qcow2 -F qcow2 os.qcow2; qemu-io -c "write 0 512k" os.qcow2 >/dev/null; (ulimit -f 512; qemu-img commit os.qcow2); qemu-img map --output=json os.qcow2 | head -1'
same 'qemu-img commit --image-opts driver=qcow2,file.filename=o.qcow2'

setup_bitmap() {
  qemu-img create -f qcow2 a.qcow2 1M
  qemu-img bitmap --add a.qcow2 b
  qemu-img bitmap --add --disable -g 4k a.qcow2 fine
  qemu-io -f qcow2 -c 'write 64k 5k' -c 'write 700k 1k' a.qcow2
  cp a.qcow2 broken.qcow2
  timeout -s KILL 1 qemu-io -f qcow2 -c 'write 0 4k' -c 'sleep 20000' broken.qcow2 || true
  qemu-img bitmap --add broken.qcow2 good
  qemu-img create -f qcow2 none.qcow2 1M
  qemu-img create -f qcow2 large.qcow2 2M
  qemu-img bitmap --add large.qcow2 b
  qemu-img create -f qcow2 huge.qcow2 8T
  qemu-img create -f qcow2 -o compat=0.10 v2.qcow2 1M
  qemu-img create -f qcow2 -b none.qcow2 -F qcow2 top.qcow2
  qemu-img bitmap --add top.qcow2 b
  truncate -s 1M a.raw
}
group bitmap
list='| sed "/disk size/d"'
same 'qemu-img bitmap'
same 'qemu-img bitmap a.qcow2 b'
same 'qemu-img bitmap --add'
same 'qemu-img bitmap --add a.qcow2'
same 'qemu-img bitmap --add a.qcow2 b c'
same 'qemu-img bitmap --clear -g 1k'
same 'qemu-img bitmap --clear -F raw -g 1k'
same 'qemu-img bitmap -F raw -b x'
same 'qemu-img bitmap --add -g 1k -F raw x'
same 'qemu-img bitmap --clear -F raw x y'
same 'qemu-img bitmap --clear -b nofile a.qcow2 b'
same 'qemu-img bitmap --add --bogus a.qcow2 x'
same 'qemu-img bitmap --add=1 a.qcow2 x'
same 'qemu-img bitmap --add -U a.qcow2 x'
same 'qemu-img bitmap --add --merge'
for size in 1x "''" -1 256 4G 1000; do same "qemu-img bitmap --add -g $size a.qcow2 x"; done
for size in 0 512 2G 0x1000; do same "qemu-img bitmap --add -g $size a.qcow2 x && qemu-img info a.qcow2 $list"; done
same "qemu-img bitmap --add --granularity=1M --disable a.qcow2 x; qemu-img info --output=json a.qcow2 | sed /actual-size/d"
same 'qemu-img bitmap --add a.qcow2 b'
same "qemu-img bitmap --add a.qcow2 ''"
same "qemu-img bitmap --add a.qcow2 \$(printf %01023d 7) && qemu-img info a.qcow2 $list"
same 'qemu-img bitmap --add nofile b'
same 'qemu-img bitmap --add -f bogus a.qcow2 x'
same 'qemu-img bitmap --add --image-opts -f qcow2 a.qcow2 x'
same "qemu-img bitmap --add --image-opts driver=qcow2,file.filename=a.qcow2 x; qemu-img info a.qcow2 $list"
for action in --remove --clear --enable --disable '--merge b' '--merge nosuch'; do
  same "qemu-img bitmap $action a.qcow2 nosuch"
  same "qemu-img bitmap $action a.qcow2 b; qemu-img info a.qcow2 $list; qemu-img check -q a.qcow2"
  same "qemu-img bitmap $action broken.qcow2 b; qemu-img info broken.qcow2 $list; qemu-img check -q broken.qcow2"
  same "qemu-img bitmap $action -f raw a.raw b"
  same "qemu-img bitmap $action v2.qcow2 b"
done
same 'qemu-img bitmap --merge b broken.qcow2 good'
same "qemu-img bitmap --merge '' a.qcow2 b"
same "qemu-img bitmap --remove b --remove fine a.qcow2 b"
same "qemu-img bitmap --remove a.qcow2 b; qemu-img bitmap --remove a.qcow2 fine; qemu-img info a.qcow2 $list; qemu-img check a.qcow2 | head -1"
same "qemu-img bitmap --remove --add --clear --disable a.qcow2 b; qemu-img info a.qcow2 $list"
same "qemu-img bitmap --disable --disable --enable --clear --disable a.qcow2 b; qemu-img info a.qcow2 $list"
same "qemu-img bitmap --clear --merge nosuch --remove a.qcow2 b; qemu-img info a.qcow2 $list"
same 'qemu-img bitmap --merge b -b nofile a.qcow2 b'
same 'qemu-img bitmap --merge b -b nofile -F bogus a.qcow2 b'
same 'qemu-img bitmap --merge b -b large.qcow2 -F qcow2 a.qcow2 b'
same 'qemu-img bitmap --merge nosuch -b large.qcow2 a.qcow2 b'
same 'qemu-img bitmap --merge b -b broken.qcow2 a.qcow2 b'
same 'qemu-img bitmap --merge b -b a.raw -F raw a.qcow2 b'
same 'qemu-img bitmap --merge b -b a.qcow2 a.qcow2 b'
same 'rm none.qcow2; qemu-img bitmap --add top.qcow2 c && qemu-img bitmap --merge b --source-file top.qcow2 --source-format qcow2 a.qcow2 b'
differs stderr 'the file is named, not a node with a random number' 'qemu-img bitmap --add -f raw a.raw b'
differs stderr 'the file is named, not a node with a random number' 'qemu-img bitmap --add v2.qcow2 b'
differs stderr 'the file is named, not a node with a random number' 'qemu-img bitmap --add -g 1k huge.qcow2 b'
differs stderr 'the file is named, not a node with a random number' "qemu-img bitmap --add a.qcow2 \$(printf %01024d 7)"
same "qemu-img convert --bitmaps -O qcow2 a.qcow2 x && qemu-img info x $list && qemu-img check -q x"
same 'qemu-img convert --bitmaps -O raw a.qcow2 x'
same 'qemu-img convert --bitmaps -O qcow2 a.qcow2 a.qcow2 x'
same 'qemu-img convert --bitmaps -f raw -O qcow2 a.raw x'
same 'qemu-img convert --bitmaps -O qcow2 v2.qcow2 x'
same 'qemu-img convert --bitmaps -O qcow2 -o compat=0.10 a.qcow2 x'
same "qemu-img convert --bitmaps -n -O qcow2 a.qcow2 none.qcow2 && qemu-img info none.qcow2 $list"
same "qemu-img create -q -f qcow2 x 2M; qemu-img convert --bitmaps -n -O qcow2 a.qcow2 x; qemu-img info x $list"
same 'qemu-img convert --bitmaps -n -O qcow2 top.qcow2 a.qcow2'
same 'qemu-img convert --bitmaps -O qcow2 broken.qcow2 x'
same "qemu-img convert --bitmaps --skip-broken-bitmaps -O qcow2 broken.qcow2 x; qemu-img info x $list"
same 'qemu-img convert --skip-broken-bitmaps -O qcow2 a.qcow2 x'
same "qemu-img convert -O qcow2 broken.qcow2 x && qemu-img info x $list"
same "qemu-img snapshot -c s a.qcow2; qemu-img snapshot -a s a.qcow2; qemu-img info a.qcow2 | sed '/disk size/d; /^1 /d'"

setup_data_file() {
  head -c 300k /dev/urandom >s.raw
  truncate -s 1M s.raw
  qemu-img convert -O qcow2 -o data_file=d.data s.raw d.qcow2
  qemu-img convert -O qcow2 -o data_file=r.data,data_file_raw=on s.raw r.qcow2
  qemu-img convert -O qcow2 -o data_file=gone.data s.raw gone.qcow2
  rm gone.data
  qemu-img create -q -f qcow2 -b d.qcow2 -F qcow2 o.qcow2
  qemu-io -c 'write -P 1 100k 100k' o.qcow2
}

group data_file
for image in d r gone o; do
  same "qemu-img info $image.qcow2"
  same "qemu-img info --output=json $image.qcow2 | grep -v actual-size"
  same "qemu-img map $image.qcow2"
  same "qemu-img map --output=json $image.qcow2"
  same "qemu-img check $image.qcow2"
  same "qemu-img check -r all $image.qcow2"
  same "qemu-img compare s.raw $image.qcow2"
  same "qemu-img convert -O raw $image.qcow2 x; cksum x"
  same "qemu-img convert -c -O qcow2 $image.qcow2 x; qemu-img compare x $image.qcow2"
  same "qemu-img measure -O qcow2 $image.qcow2"
  same "qemu-img resize $image.qcow2 2M; qemu-img info $image.qcow2 | grep virtual; qemu-img convert -O raw $image.qcow2 x; cksum x"
  same "qemu-img resize --shrink $image.qcow2 200k; qemu-img convert -O raw $image.qcow2 x; cksum x; qemu-img check $image.qcow2"
  same "qemu-img bitmap --add $image.qcow2 b; qemu-img info $image.qcow2 | grep -A5 bitmaps"
done
same 'qemu-img snapshot -c one d.qcow2'
same 'qemu-img snapshot -l d.qcow2'
same 'qemu-img commit o.qcow2; qemu-img compare o.qcow2 d.qcow2'
same 'qemu-img rebase -b s.raw -F raw d.qcow2; qemu-img info d.qcow2 | grep backing'
same 'qemu-img resize --preallocation=full d.qcow2 2M; qemu-img check d.qcow2'
same 'qemu-img convert -c -O qcow2 -o data_file=x.data s.raw x'
same 'qemu-img convert -n -O qcow2 s.raw r.qcow2; cmp s.raw r.data; qemu-img check r.qcow2'
same 'qemu-img create -f qcow2 -o data_file=x.data x 1M; stat -c %s x.data'
same 'qemu-img create -f qcow2 -o data_file=x.data -b s.raw -F raw x; qemu-img info x'
same 'qemu-img create -f qcow2 -o data_file=no/x.data x 1M'
same 'qemu-img convert --image-opts driver=qcow2,file.filename=gone.qcow2,data-file.filename=d.data,data-file.driver=file -O raw x; cksum x'
same "qemu-img convert 'json:{\"driver\":\"qcow2\",\"file\":{\"driver\":\"file\",\"filename\":\"gone.qcow2\"},\"data-file\":{\"driver\":\"file\",\"filename\":\"d.data\"}}' -O raw x; cksum x"
same 'qemu-img compare --image-opts driver=qcow2,file.filename=gone.qcow2,data-file=d.data driver=raw,file.filename=s.raw'
same 'qemu-img create -q -f qcow2 plain.qcow2 1M; qemu-img map --image-opts driver=qcow2,file.filename=plain.qcow2,data-file.driver=file,data-file.filename=d.data'
same 'qemu-img create -q -f qcow2 plain.qcow2 1M; qemu-img info --image-opts driver=qcow2,file.filename=plain.qcow2,data-file.driver=file,data-file.filename=d.data'

setup_amend() {
  qemu-img create -q -f qcow2 a.qcow2 1M
  qemu-io -c 'write -P 1 0 100k' -c 'write -z 128k 128k' a.qcow2
  qemu-img create -q -f qcow2 -b a.qcow2 -F qcow2 o.qcow2
  qemu-io -c 'write -P 2 64k 64k' -c 'write -z 0 64k' -c 'write -P 3 512k 64k' -c 'write -z 512k 64k' o.qcow2
  qemu-img create -q -f qcow2 -o compat=0.10 v2.qcow2 1M
  qemu-io -c 'write -P 1 0 100k' v2.qcow2
  qemu-img create -q -f qcow2 -o compat=0.10 v2snap.qcow2 1M
  qemu-io -c 'write -P 1 0 100k' v2snap.qcow2
  qemu-img snapshot -c one v2snap.qcow2
  qemu-img create -q -f qcow2 snap.qcow2 1M
  qemu-img snapshot -c one snap.qcow2
  qemu-io -c 'write -P 1 0 100k' snap.qcow2
  qemu-img create -q -f qcow2 large.qcow2 1M
  qemu-img snapshot -c one large.qcow2
  qemu-img resize -q large.qcow2 2M
  qemu-img create -q -f qcow2 -o refcount_bits=8 r8.qcow2 1M
  qemu-img create -q -f qcow2 -o extended_l2=on x.qcow2 1M
  qemu-img create -q -f qcow2 -o data_file=d,data_file_raw=on df.qcow2 1M
  qemu-img create -q -f qcow2 -o compression_type=zstd z.qcow2 1M
  head -c 300k /dev/zero | tr '\0' 'x' >t.raw
  qemu-img convert -c -O qcow2 -o compression_type=zstd t.raw zc.qcow2
  qemu-img create -q -f qcow2 -o lazy_refcounts=on l.qcow2 1M
  truncate -s 1M a.raw
}

group amend
after='; qemu-img info $i.qcow2 | grep -v "disk size\|date\|^file\|^Child"; qemu-img check $i.qcow2 | head -1; qemu-img convert -O raw $i.qcow2 x; cksum x; case $i in a|v2|l|df|z) head -c 64K $i.qcow2 | cksum ;; esac'
for image in a o v2 v2snap snap large r8 x df z zc l; do
  for options in compat=0.10 compat=1.1 compat=v2 compat=v3,lazy_refcounts=on lazy_refcounts=off lazy_refcounts=on size=2M \
    size=512k refcount_bits=16 data_file=e data_file_raw=off data_file_raw=on compat=7; do
    [ "$image $options" != "r8 refcount_bits=16" ] || continue
    same "i=$image; qemu-img amend -o $options $image.qcow2$after"
  done
done
for options in cluster_size=4k nonsense=1 backing_file=x backing_fmt=raw preallocation=off compression_type=zlib encryption=off \
  extended_l2=off refcount_bits=3 size=-1 size=100 size size=1E size=1M,size=2M compat=0.10,refcount_bits=8 '' ,; do
  same "i=a; qemu-img amend -o '$options' a.qcow2$after"
done
same 'qemu-img amend'
same 'qemu-img amend a.qcow2'
same 'qemu-img amend -o size=1M'
same 'qemu-img amend -o size=1M a b'
same 'for bits in 64 8 1; do qemu-img amend -o refcount_bits=$bits a.qcow2; qemu-img info a.qcow2 | grep refcount; qemu-img check a.qcow2; done'
same 'qemu-img amend -o refcount_bits=16 r8.qcow2; qemu-img info r8.qcow2 | grep refcount'
same 'qemu-img snapshot -c s a.qcow2; qemu-img amend -o refcount_bits=1 a.qcow2 2>&1 | sed "s/0x[0-9a-f]*/OFFSET/"'
same 'qemu-img amend -o refcount_bits=3 a.qcow2'
same 'qemu-img amend -o compat=v2,refcount_bits=16 r8.qcow2; qemu-img info r8.qcow2 | grep compat'
same 'qemu-img amend -o help'
same 'qemu-img amend -o help a.qcow2 | grep -v encrypt'
same 'qemu-img amend -f qcow2 -o help | grep -v encrypt'
same 'qemu-img amend -f raw -o help'
same 'qemu-img amend -f raw -o size=2M a.raw'
same 'qemu-img amend -f bogus -o size=2M a.raw'
same 'qemu-img amend -t foo -o size=2M a.qcow2'
same 'qemu-img amend -o size=2M nosuch'
same 'qemu-img amend -q -p -o compat=v2 a.qcow2'
same 'qemu-img amend --force -o size=4M a.qcow2; qemu-img info a.qcow2 | grep virtual'
same 'qemu-img amend --image-opts -o size=4M driver=qcow2,file.filename=a.qcow2; qemu-img info a.qcow2 | grep virtual'

setup_sizes() {
  qemu-img create -q a.raw 1M
  qemu-img create -q -f qcow2 a.qcow2 1M
}

group sizes # a suffix behind a hexadecimal number
same 'qemu-img create x 0x2k'
same 'qemu-img create x 0x2b'
same 'qemu-img create x 0x100K'
same 'qemu-img convert -S 0x1k -f raw a.raw x'
same 'qemu-img convert -r 0x100k -f raw a.raw x'
same 'qemu-img measure --size 0x1k'
same 'qemu-img map -s 0x1k --output=json a.qcow2'
same 'qemu-img map -l 0x1k --output=json a.qcow2'
same 'qemu-img bitmap --add -g 0x1k a.qcow2 b'
same 'qemu-img dd bs=0x1k count=2 -f raw if=a.raw of=x'
same 'qemu-img commit -r 0x1k a.qcow2'
same 'qemu-img resize -f raw a.raw +0x1k'
same 'qemu-img resize -f raw a.raw 0x1000k'
same 'qemu-img bench -s 0x1k -S 0x2k -o 0x1k -c 2 a.qcow2'
same 'qemu-img info --image-opts driver=raw,size=0x1k,file.filename=a.raw | head -3'
differs stderr 'the warning is printed once' 'qemu-img create -q -f qcow2 -o size=0x1k x'
differs stderr 'the warning is printed once' 'qemu-img create -q -f qcow2 -o cluster_size=0x1k x 1M'
same 'qemu-img measure -O qcow2 -o cluster_size=0x1k --size 1M'
same 'qemu-img amend -o size=0x2000k a.qcow2'
same 'qemu-img create -q x 0x9000000000000000k'
same 'qemu-io -f raw -c "read -q 0x1k 512" a.raw'

setup_bench() {
  qemu-img create -q -f qcow2 a.qcow2 1M
  qemu-img create -q a.raw 1M
  qemu-img create -q -f qcow2 -b a.qcow2 -F qcow2 o.qcow2
  truncate -s 1000 odd.raw
}

group bench
differs stdout,stderr,exit 'a request fails; qemu-img divides by the size' 'qemu-img create -q -f qcow2 e.qcow2 0; qemu-img bench -c 1 e.qcow2'
same 'qemu-img bench'
same 'qemu-img bench a.qcow2 a.raw'
same 'qemu-img bench nofile'
same 'qemu-img bench -f bogus a.qcow2'
same 'qemu-img bench -f qcow2 a.raw'
same 'qemu-img bench -x a.qcow2'
same 'qemu-img bench --bogus a.qcow2'
same 'qemu-img bench --format raw a.raw'
same 'qemu-img bench --quiet a.qcow2'
same 'qemu-img bench --object secret,id=s,data=x a.qcow2'
same 'qemu-img bench -c'
same 'qemu-img bench -c many a.qcow2'
same 'qemu-img bench -c -1 a.qcow2'
same 'qemu-img bench -c 10k a.qcow2'
same 'qemu-img bench -c 2147483648 a.qcow2'
same 'qemu-img bench -c "" a.qcow2'
same 'qemu-img bench -c 0 a.qcow2'
same 'qemu-img bench -c 0x10 a.qcow2'
same 'qemu-img bench -c 010 a.qcow2'
same 'qemu-img bench -d x a.qcow2'
same 'qemu-img bench -d -1 a.qcow2'
same 'qemu-img bench -d 2147483648 a.qcow2'
same 'qemu-img bench -c 0 -d 0 a.qcow2'
same 'qemu-img bench -c 10 -d 2 a.qcow2'
same 'qemu-img bench -c 10 -d 2 a.raw'
same 'qemu-img bench -c 10 -d 2 o.qcow2'
same 'qemu-img bench -c 5 -d 100000 a.qcow2'
same 'qemu-img bench a.qcow2'
same 'qemu-img bench -s x a.qcow2'
same 'qemu-img bench -s 2G a.qcow2'
same 'qemu-img bench -s 0 -c 1 a.qcow2'
same 'qemu-img bench -s 0x1k -c 1 a.qcow2'
same 'qemu-img bench -s 2M -c 3 a.qcow2 2>&1 >out; code=$?; cat out; exit $code'
same 'qemu-img bench -S x a.qcow2'
same 'qemu-img bench -S 3G a.qcow2'
same 'qemu-img bench -S 0 -s 512 -c 3 a.qcow2'
same 'qemu-img bench -s 64k -S 300k -c 20 -d 1 a.qcow2'
same 'qemu-img bench -s 64k -S 300k -o 900k -c 20 -d 1 a.raw'
same 'qemu-img bench -s 64k -S 1000k -c 4 -d 1 a.raw'
same 'qemu-img bench -o x a.qcow2'
same 'qemu-img bench -o -1 a.qcow2'
same 'qemu-img bench -o 2M -c 3 a.qcow2'
same 'qemu-img bench -c 3 -f raw odd.raw'
same 'qemu-img bench -w -c 3 odd.raw'
same 'qemu-img bench -w -c 3 -f raw a.raw'
same 'qemu-img bench -w -c 3 a.raw'
same 'qemu-img bench -w -c 1 -q a.qcow2'
same 'qemu-img bench -w -c 3 -o 1 -s 3 -S 7 --pattern=0xff a.qcow2; qemu-io -r -c "read -v 0 32" a.qcow2'
same 'qemu-img bench -w -c 40 -s 64k -S 192k -d 7 --pattern=65 -f raw a.raw; md5sum a.raw'
same 'qemu-img bench -w -c 10 -d 3 -s 4k -S 64k --pattern=1 o.qcow2; qemu-img map --output=json o.qcow2 | grep -c "\"data\": true"'
same 'qemu-img bench -w -c 1 -s 3 -o 1048574 a.qcow2'
same 'qemu-img bench --pattern=256 a.qcow2'
same 'qemu-img bench --pattern=-1 a.qcow2'
same 'qemu-img bench --pattern=x a.qcow2'
same 'qemu-img bench --pattern= a.qcow2'
same 'qemu-img bench --pattern=5 -c 1 a.qcow2'
same 'qemu-img bench --flush-interval=x a.qcow2'
same 'qemu-img bench --flush-interval=-3 -w a.qcow2'
same 'qemu-img bench --flush-interval=5 a.qcow2'
same 'qemu-img bench --flush-interval=5'
same 'qemu-img bench --flush-interval=5 nofile'
same 'qemu-img bench -w --flush-interval=5 a.qcow2'
same 'qemu-img bench -w --flush-interval=5 nofile'
same 'qemu-img bench -w --flush-interval=0 -c 1 a.qcow2'
same 'qemu-img bench -w -c 11 -d 3 --flush-interval 4 a.qcow2'
same 'qemu-img bench -w -c 10 -d 2 --flush-interval=5 --no-drain a.qcow2'
same 'qemu-img bench --no-drain -c 1 a.qcow2'
same 'qemu-img bench -i fast a.qcow2'
same 'qemu-img bench -i threads -c 1 a.qcow2'
same 'qemu-img bench -i io_uring -c 1 a.qcow2'
same 'qemu-img bench -i native a.qcow2'
same 'qemu-img bench -i native nofile'
same 'qemu-img bench -i native -t none -c 1 a.qcow2'
same 'qemu-img bench -n a.qcow2'
same 'qemu-img bench -n -i threads -t none -c 1 a.qcow2'
same 'qemu-img bench -n -t directsync -c 1 a.qcow2'
same 'qemu-img bench -t fast a.qcow2'
same 'qemu-img bench -t fast -c x a.qcow2'
for cache in none off writeback writethrough directsync unsafe; do
  same "qemu-img bench -w -c 4 -d 2 -t $cache a.qcow2"
done
same 'qemu-img bench -U -c 1 a.qcow2'
same 'qemu-img bench --force-share -c 1 a.qcow2'
same 'qemu-img bench -U -w -c 1 a.qcow2'
same 'qemu-img bench --image-opts -c 1 driver=qcow2,file.filename=a.qcow2'
same 'qemu-img bench --image-opts -f qcow2 -c 1 driver=qcow2,file.filename=a.qcow2'
same 'qemu-img bench --image-opts driver=qcow2,file.filename=nofile'
same 'qemu-img bench --help | grep -c "^  bench "'
same 'qemu-img --help | grep "^  bench "'
