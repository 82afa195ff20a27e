# The command lines of qemu-io that compat.sh runs with both programs.
# shellcheck shell=bash

# io COMMAND...: each with the raw image of the group, and nothing else in the run.
io() {
  local command
  for command in "$@"; do same "qemu-io -f raw -c '$command' a.raw"; done
}

# io_qcow2 COMMAND...: all of them one after the other, with the group's qcow2 image.
io_all() {
  local line="qemu-io -f $1" command
  for command in "${@:3}"; do line+=" -c '$command'"; done
  same "$line $2"
}

setup_io() {
  qemu-img create -q a.raw 1M
  qemu-img create -q -f qcow2 a.qcow2 1M
  qemu-img create -q -f qcow2 full.qcow2 1M
  qemu-io -f qcow2 -c 'write -q -P 1 0 1M' full.qcow2
  qemu-img create -q -f qcow2 -b full.qcow2 -F qcow2 over.qcow2
  printf '#_ ~A\177\200\t/Zz09' | dd of=a.raw conv=notrunc
  truncate -s 1000 odd.raw
  truncate -s 0 empty.raw
  truncate -s 1049088 more.raw
  printf abc >pattern
  : >nothing
  cat >rules <<'RULES'
# comment
[inject-error]
event = "l2_load"
errno = "28"
once = "off"
immediately = "on"

[set-state]
event = "read_aio"
state = "1"
new_state = "2"
RULES
}

group io

# The program's own options.
same 'qemu-io </dev/null'
same 'qemu-io nofile'
same 'qemu-io -c "read 0 512"'
same 'qemu-io -c length'
same 'qemu-io -c close'
same 'qemu-io -c aio_flush'
same 'qemu-io -c "sleep 1"'
same 'qemu-io -f bogus a.raw'
same 'qemu-io -f qcow2 a.raw'
same 'qemu-io a.raw </dev/null'
same 'qemu-io a.raw -c length -f raw'
same 'qemu-io -f raw --cmd length a.raw'
same 'qemu-io -f raw --cmd=length --cmd=info a.raw'
same 'qemu-io -f raw -f qcow2 -c length a.qcow2'
same 'qemu-io -f raw -c length -c bogus -c length a.raw'
same 'qemu-io -t foo -f raw -c length a.raw'
same 'qemu-io --cache foo -f raw -c length a.raw'
same 'qemu-io -i foo -f raw -c length a.raw'
same 'qemu-io -i native -f raw -c length a.raw'
same 'qemu-io -k -f raw -c length a.raw'
same 'qemu-io -d foo -f raw -c length a.raw'
for mode in none writeback writethrough directsync unsafe; do same "qemu-io -t $mode -f raw -c 'write 0 4k' -c 'read -P 0xcd 0 4k' a.raw"; done
for option in -n '-n -k' '-i threads' '--aio io_uring' '-d unmap' '-d ignore' -m '-m -n' -C '-r' '-r -U' --nocache --misalign --copy-on-read; do
  same "qemu-io $option -f raw -c length -c 'read -v 0 16' a.raw"
done
same 'qemu-io -C -r -f raw -c length a.raw'
same 'qemu-io -U -f raw -c length a.raw'
same 'qemu-io -r -f raw -c "write 0 5" a.raw'
same 'qemu-io -r -f raw -c "discard 0 512" -c "truncate 5" -c "write -z 0 512" -c "aio_write 0 512" -c flush -c "reopen -w" -c "write 0 5" a.raw'
same 'qemu-io -r -f raw -c "aio_write -x" -c discard -c truncate -c "truncate x" -c "write x y" a.raw'
same 'qemu-io --image-opts -c length driver=raw,file.filename=a.raw'
same 'qemu-io --image-opts -c length file.filename=a.raw'
same 'qemu-io --image-opts -f raw -c length file.filename=a.raw'
same 'qemu-io --image-opts -c length a.raw'
same 'qemu-io --image-opts -c length -- driver=raw,file.filename=a.raw'
same 'qemu-io --object foo -c length'
same 'qemu-io --object secret,id=a,data=x -c quit'
same 'qemu-io -T foo -f raw -c length a.raw'
same 'qemu-io -s -f qcow2 -c "write -P 5 0 512" -c "read -P 5 0 512" -c map a.qcow2; qemu-io -f qcow2 -c "read -P 0 0 512" -c map a.qcow2'
same 'qemu-io -s -f raw -c length -c info a.raw'
same 'qemu-io -s -r -f qcow2 -c "write 0 512" a.qcow2'
same 'qemu-io -C -f qcow2 -c "read -P 1 100k 512" -c map over.qcow2; qemu-io -f qcow2 -c map over.qcow2'
differs stdout 'the help is in words of its own' 'qemu-io -x'
differs stdout 'the help is in words of its own' 'qemu-io --foo'
differs stdout 'the help is in words of its own' 'qemu-io -f'
differs stdout 'the help is in words of its own' 'qemu-io -c'
differs stdout,stderr 'an error instead of the help' 'qemu-io a b'
differs stdout,stderr 'an error instead of the help' 'qemu-io -f raw a.raw length'
differs stdout 'the help is in words of its own' 'qemu-io --help'
differs stdout 'the help is in words of its own' 'qemu-io -f raw -c "help read" a.raw'
same 'qemu-io -V | grep -o "^qemu-io version 7[.]2[.]"'
same 'qemu-io -c help | sed "s/^map  --/map --/"'

# Lines and words.
io '' ' ' bogus ' length ' 'read   0    512' '#length' 'length #x' "read \"0\" 5" 'length;length' -x
io 'quit' 'quit x' q 'help x' 'help quit' 'help read x' 'help -x' 'r 0 5' 'w 0 5' 'd 0 512' i l f a t o c rv wv s m b h
same "qemu-io -f raw -c 'length
length' a.raw"
same 'qemu-io -f raw -c quit -c length a.raw'
same 'qemu-io -f raw -c bogus -c quit -c length a.raw'
same 'printf "length\n" | qemu-io -f raw a.raw'
same 'printf "length" | qemu-io -f raw a.raw'
same 'printf "\n\n" | qemu-io -f raw a.raw'
same 'printf "length\nread 0 512\n\nbogus\n  info  \nquit\nlength\n" | qemu-io -f raw a.raw'
same 'printf "length\nread 1M 5\n" | qemu-io -f raw a.raw'
same 'printf "length\r\nlength\t\n\tlength\n" | qemu-io -f raw a.raw'
same 'printf "help quit\n" | qemu-io'
same 'printf "open -o driver=raw a.raw\nlength\nclose\nlength\n" | qemu-io'
same 'printf "aio_read 0 512\naio_flush\nlength\n" | qemu-io -f raw a.raw'
same 'printf "aio_read 0 512\n" | qemu-io -f raw a.raw'
same '(printf sle; sleep 0.2; printf "ep 5\nlength\n"; sleep 0.2; echo length) | qemu-io -f raw a.raw'
same 'printf "length\n" | qemu-io -c length -f raw a.raw'
same 'qemu-io -f raw -c length a.raw >/dev/null </dev/null'

# read and readv.
io read 'read 0' 'read 0 x' 'read x 0' 'read 0 512' 'read -P' 'read -P 0 0 512' 'read -P 0 100 512' 'read -P 1 0 512' 'read -P 256 0 512' \
  'read -P 0xff 0 512' 'read -P x 0 512' 'read -P -1 0 512' 'read -P 1x 0 5' 'read -P 010 0 5' 'read -z 0 1' 'read -v 0 32' 'read -v 10 40' \
  'read -qv 0 16' 'read -Cv 0 16' 'read -s 1 0 512' 'read -P 0 -s 1 0 512' 'read -P 0 -s 100 0 512' 'read -P 0 -s 512 0 512' \
  'read -P 0 -s 513 0 512' 'read -P 0 -l 513 0 512' 'read -P 0 -s 1 -l 512 0 512' 'read -P 0 -l 0 0 512' 'read -P 0x23 -l 1 0 512' \
  'read -P 0x23 -l 2 0 512' 'read -l 1 0 512' 'read -P 0 -s x 0 512' 'read -P 0 -l x 0 512' 'read -s 1 x 512' 'read -s 1 0 3G' \
  'read -P 1 -s 5 0 x' 'read -q 0 512' 'read -C 0 512' 'read -Cq 0 512' 'read -b 0 512' 'read -b 1 5' 'read -b 512 5' 'read -pq 0 512' \
  'read -a 0 512' 'read 1M 512' 'read 1023k 2k' 'read 0 1G' 'read 0 2G' 'read 0 3G' 'read 0 2147483136' 'read 0 2147483137' 'read 0 8E' \
  'read -1 512' 'read -- -1 512' 'read 0 -- -512' 'read 0 0' 'read 1M 0' 'read 1 1' 'read 3 1000' 'read 0 1.5k' 'read 0 0x200' 'read 0 512b' \
  'read 0 1kk' 'read 0 512 512' 'read -p 0 512 3' 'read 0 512 -q' 'read --foo 0 5' 'read -P 1 -P 2 0 512' 'read -P 1' 'read 0 1e3' 'read 0 0.5' \
  'read -v 1048570 6' 'read 0 1025' 'read 0 1000000' 'read -s' 'read -l' 'read -P 1 0'
io readv 'readv 0' 'readv 0 512' 'readv 0 512 512' 'readv 0 512 x' 'readv -P 1 0 512 512' 'readv -v 0 10 22' 'readv 0 0 512' 'readv 0 -- -1' \
  'readv x 512' 'readv 0 3G' 'readv 0 1G 1G' 'readv 2M 512' 'readv -P 1 -q 0 512' 'readv -P x 0 512' 'readv -z 0 512' 'readv -C 0 512 512' \
  'readv 0 1M 1' 'readv -P 1'

# write and writev.
io write 'write 0' 'write 0 512' 'write -P 3 0 512' 'write -P 300 0 512' 'write -s pattern 0 10' 'write -s nothing 0 10' 'write -s nofile 0 10' \
  'write -s pattern -P 1 0 10' 'write -z 0 1k' 'write -z -P 1 0 1k' 'write -z -s pattern 0 1k' 'write -n 0 1k' 'write -zn 0 4k' 'write -u 0 1k' \
  'write -zu 0 1k' 'write -zun 0 4k' 'write -c 0 64k' 'write -c -z 0 64k' 'write -c -b 0 64k' 'write -b 0 512' 'write -bz 0 512' 'write -f 0 512' \
  'write -f -b 0 512' 'write -f -c 0 512' 'write -f -z 0 512' 'write -q 0 512' 'write -C 0 512' 'write -v 0 512' 'write 1M 512' 'write 1023k 2k' \
  'write 0 8E' 'write 0 3G' 'write 0 2G' 'write -z 0 3G' 'write -zn 0 3G' 'write 7 1k' 'write -p 0 512' 'write -b -c -z 0 512' 'write 0 x' \
  'write x 0' 'write -1 0' 'write 0 0' 'write 1M 0' 'write -P x -z 0 5' 'write -z -u -c 0 5' 'write 0 512 512' 'write -c 5 512' 'write -c 0 5' \
  'write -P 1 -P 2 0 512' 'write -s' 'write -x'
io writev 'writev 0' 'writev 0 512 512' 'writev -P 7 0 512 512' 'writev -P x 0 512' 'writev -z 0 512' 'writev -f 0 512' 'writev -u 0 512' \
  'writev -v 0 512' 'writev 0 x' 'writev x 5' 'writev 2M 512' 'writev -C 0 512' 'writev -q 0 512' 'writev 0 3G' 'writev 0 1G 1G' 'writev -P 7'
same 'qemu-io -f raw -c "write -q -s pattern 1 10" -c "write -q -P 7 20 3" -c "write -q -z 22 1" -c "writev -q -P 8 30 1 2 3" a.raw; xxd -l 64 a.raw'
same 'qemu-io -f raw -c "write -q -c -z 0 512" -c "write -q 1048575 1" -c "read -v 1048570 6" a.raw'

# aio_read, aio_write.
for command in aio_read 'aio_read 0' 'aio_read 0 512' 'aio_read -v 0 16' 'aio_read -q 0 16' 'aio_read -qv 0 16' 'aio_read -C 0 16' 'aio_read -P 1 0 512' \
  'aio_read -P x 0 512' 'aio_read -i 0 512' 'aio_read 0 x' 'aio_read x 5' 'aio_read 2M 512' 'aio_read -z 0 5' 'aio_read 0 512 512' 'aio_read 0 3G' \
  aio_write 'aio_write 0' 'aio_write 0 512' 'aio_write -z 0 512' 'aio_write -z 0 512 512' 'aio_write -z -P 1 0 512' 'aio_write -u 0 512' \
  'aio_write -zu 0 512' 'aio_write -f 0 512' 'aio_write -i 0 512' 'aio_write -P x 0 512' 'aio_write -q 0 512' 'aio_write -C 0 512' 'aio_write -x 0 512' \
  'aio_write 2M 512' 'aio_write -z 2M 512' 'aio_write 0 x' 'aio_write x 5' 'aio_write -z 0 3G' 'aio_write 0 3G' 'aio_write -z x 5' 'aio_write -z 0 x' \
  'aio_write 0 512 512' 'aio_write -zu 0 512 512'; do
  io_all raw a.raw "$command" aio_flush
done
io 'aio_read 0 512' 'aio_write 0 512'
io_all raw a.raw 'aio_read 0 512' length
io_all raw a.raw 'aio_read 0 512' quit length
io_all raw a.raw 'aio_read 0 512' close 'aio_write 0 512'
io_all raw a.raw 'aio_write -P 1 0 512' aio_flush 'aio_read -P 1 0 512' aio_flush
io_all raw a.raw 'aio_write -P 1 0 64k' 'sleep 100' length
same 'qemu-io --image-opts -c "aio_read 0 512" -c "aio_read 0 1k" -c "sleep 1" -c length -c aio_flush driver=null-co,size=1M,latency-ns=100000000'
same 'qemu-io --image-opts -c "aio_read 0 512" -c "read 0 1k" driver=null-aio,size=1M,latency-ns=50000000'

# Allocation, length, information, truncation.
io discard 'discard 0' 'discard 0 64k' 'discard -q 0 64k' 'discard -C 0 64k' 'discard -x 0 64k' 'discard x 5' 'discard 0 x' 'discard 0 3G' 'discard 1 5' \
  'discard 1M 64k' 'discard 0 1M 3' 'discard 1023k 2k' 'discard 0 0' 'discard 0 1M'
io alloc 'alloc 0' 'alloc 0 512' 'alloc 0 4k' 'alloc 1M' 'alloc 2M' 'alloc 0 2M' 'alloc 5' 'alloc 5 5' 'alloc x' 'alloc 0 x' 'alloc 0 1 2' 'alloc 0 0' \
  'alloc 1023k 3k' 'alloc 0 1025' 'alloc 0 1048064' 'alloc -x' map 'map x' length 'length x' info 'info x' flush 'flush x' 'flush -x' 'aio_flush' \
  'aio_flush x'
for command in truncate 'truncate 2M' 'truncate x' 'truncate -m off 1M' 'truncate -m full 2M' 'truncate -m falloc 2M' 'truncate -m metadata 2M' \
  'truncate -m foo 2M' 'truncate -x 2M' 'truncate -m' 'truncate 1000' 'truncate 8E' 'truncate 0' 'truncate 2M -m full'; do
  same "qemu-io -f raw -c '$command' -c length a.raw; stat -c %s a.raw"
done
differs stdout 'the message names the word that is wrong' 'qemu-io -f raw -c "truncate -m off x" a.raw'
differs stdout 'the message names the word that is wrong' 'qemu-io -f raw -c "truncate -- -5" a.raw'
for image in odd.raw empty.raw more.raw; do
  io_all raw $image map 'alloc 0 1M' 'alloc 512' 'alloc 1M 5' length info 'read -v 990 20' 'write 1000 24' length
  io_all file $image info map length 'read -v 0 16' 'read 2M 5' 'write 2M 5'
done
io_all file a.raw info map length 'write 0 512' 'write 1048570 100' 'truncate 2M' length
io_all qcow2 a.qcow2 'alloc 0' 'alloc 0 1M' map 'write 64k 64k' 'alloc 0 1M' map 'alloc 64k 128k' 'alloc 100k 1M' info length
io_all qcow2 a.qcow2 'write -z 64k 64k' map 'discard 64k 64k' map 'write -zu 0 1M' map 'read -P 0 0 1M'
io_all qcow2 over.qcow2 'alloc 64k' map 'write 256k 1k' map info 'read -P 1 0 256k' 'read -P 0xcd 256k 1k' 'read -P 1 257k 1k'
io_all qcow2 a.qcow2 'truncate 512k' 'truncate 1000' length 'truncate 3M' length map
io_all qcow2 a.qcow2 'truncate -m metadata 2M' map 'truncate -m full 3M' map
io_all qcow2 a.qcow2 'write -c 128k 64k' 'read -P 0xcd 128k 64k' 'write -c 5 512' 'write -c 256k 100' 'write -c 128k 64k' 'alloc 128k'
io_all qcow2 full.qcow2 'write -c 0 64k' 'discard 0 64k' 'read -P 0 0 64k' 'write -c 0 64k' map

# open, close, reopen.
for command in 'open a.raw' 'open -r a.raw' 'open nofile' 'open -o driver=raw a.raw' 'open -o driver=raw,foo=1 a.raw' 'open -o file.filename=a.raw' \
  'open -n a.raw' 'open -k a.raw' 'open -i foo a.raw' 'open -i threads a.raw' 'open -t foo a.raw' 'open -t none a.raw' 'open -d foo a.raw' \
  'open -d unmap a.raw' 'open -U a.raw' 'open -rU a.raw' 'open -C a.raw' 'open -s a.raw' 'open -x a.raw' 'open a.raw b.raw' open 'open -o driver=raw' \
  'open -o driver=qcow2 a.raw' 'open -o x' 'open -o driver=raw,file.filename=a.raw a.raw' 'open -o driver=raw,read-only=on a.raw' \
  'open -r -o driver=raw,read-only=off a.raw' 'open -rC a.raw' 'open -s -o driver=raw a.raw' 'open -o' 'open -r -s a.raw' 'open -f raw a.raw'; do
  same "qemu-io -c '$command' -c 'write 0 512' -c map"
done
same 'qemu-io -c "open -o driver=raw a.raw" -c "open -o driver=raw a.raw" -c length -c close -c length -c close -c open -c "open -o driver=qcow2 a.qcow2" -c info -c map'
io 'open' 'open -x' 'open a b' 'open nofile' 'close' 'close x'
for command in reopen 'reopen -r' 'reopen -w' 'reopen -rw' 'reopen -r -w' 'reopen -c none' 'reopen -c foo' 'reopen -o cache.direct=on' \
  'reopen -c none -o cache.direct=on' 'reopen -r -o read-only=on' 'reopen x' 'reopen -x' 'reopen -c'; do
  io_all raw a.raw "$command" 'write 0 512' 'read -P 0xcd 0 512'
done
io_all raw a.raw 'reopen -r' 'write 0 5' 'reopen -w' 'write 0 5'
io_all qcow2 a.qcow2 'write -P 3 0 64k' 'reopen -r' 'read -P 3 0 64k' 'write 0 5' 'reopen -w' 'write 0 5' map
differs stderr 'the words are those of opening' 'qemu-io -f raw -c "reopen -o foo=1" -c length a.raw'

# Signals and time.
io sleep 'sleep 10' 'sleep x' 'sleep -1' 'sleep 1 2' 'sleep 0' 'sleep 0x10' 'sleep 1k' 'sleep 1.5'
io sigraise 'sigraise x' 'sigraise 0' 'sigraise 999' 'sigraise -x' 'sigraise 1 2' 'sigraise 65' 'sigraise 66' 'sigraise 10' 'sigraise 13' 'sigraise 17'
for signal in 1 2 6 9 15 64; do
  same "qemu-io -f raw -c length -c 'sigraise $signal' -c length a.raw"
done
differs stdout 'what has been printed is not lost' 'qemu-io -f raw -c length -c abort a.raw'
same 'qemu-io -f raw -c "abort x" a.raw'

# Breakpoints.
B='-f qcow2 blkdebug::a.qcow2'
io break 'break x' 'break x y' 'break l2_load a' 'break l2_load a b' remove_break 'remove_break x' 'resume x' resume wait_break
same "qemu-io -c 'break l2_load a' -c 'remove_break a' -c 'resume b' -c 'remove_break b' -c 'break foo a' $B"
same "qemu-io -c 'break write_aio a' -c 'aio_write 0 512' -c 'wait_break a' -c 'resume a' -c aio_flush $B"
same "qemu-io -c 'break write_aio a' -c 'aio_write 0 512' -c 'wait_break a' -c length -c 'resume a' -c aio_flush -c 'read -P 0xcd 0 512' $B"
same "qemu-io -c 'break write_aio a' -c 'break write_aio b' -c 'aio_write 0 512' -c 'wait_break a' -c 'resume a' -c 'wait_break b' -c 'resume b' -c aio_flush $B"
same "qemu-io -c 'break write_aio a' -c 'aio_write 0 512' -c 'wait_break a' -c 'remove_break a'  -c aio_flush $B"
same "qemu-io -c 'break write_aio a' -c 'aio_write 0 512' -c 'wait_break a' -c 'aio_write 256k 1k' -c 'sleep 100' -c 'resume a' -c aio_flush $B"
same "qemu-io -c 'break write_aio a' -c 'aio_write 0 512' -c 'wait_break a' -c 'resume a' -c 'resume a' -c aio_flush $B"
same "qemu-io -c 'break cluster_alloc_space a' -c 'aio_write 900k 1k' -c 'wait_break a' -c 'resume a' -c aio_flush $B"
same "printf 'break write_aio a\naio_write 0 512\nwait_break a\nresume a\naio_flush\n' | qemu-io $B"
for event in l1_update l1_grow_alloc_table l1_grow_write_table l1_grow_activate_table l2_load l2_update l2_update_compressed l2_alloc_cow_read l2_alloc_write \
  read_aio read_backing_aio read_compressed write_aio write_compressed vmstate_load vmstate_save cow_read cow_write reftable_load reftable_grow \
  reftable_update refblock_load refblock_update refblock_update_part refblock_alloc refblock_alloc_hookup refblock_alloc_write \
  refblock_alloc_write_blocks refblock_alloc_write_table refblock_alloc_switch_table cluster_alloc cluster_alloc_bytes cluster_free \
  flush_to_os flush_to_disk pwritev_rmw_head pwritev_rmw_after_head pwritev_rmw_tail pwritev_rmw_after_tail pwritev pwritev_zero pwritev_done \
  empty_image_prepare l1_shrink_write_table l1_shrink_free_l2_clusters cor_write cluster_alloc_space none \
  l1_grow.alloc_table l2_alloc.write read l2_alloc snapshot_load L2_LOAD 0 5; do
  same "qemu-io -c 'break $event a' -c 'remove_break a' $B"
done

# Which events take place: each makes a request fail that comes by it.
F='driver=qcow2,file.driver=blkdebug,file.image.filename'
fails() { # EVENT IMAGE COMMAND
  same "qemu-io -t writeback --image-opts -c '$3' $F=$2,file.inject-error.0.event=$1,file.inject-error.0.errno=28,file.inject-error.0.once=on,file.inject-error.0.immediately=on"
}
fails l2_load full.qcow2 'read 0 512'
fails read_aio full.qcow2 'read 0 512'
fails read_aio a.qcow2 'read 0 512'
fails read_backing_aio over.qcow2 'read 0 512'
fails write_aio full.qcow2 'write 0 512'
fails write_aio a.qcow2 'write 0 64k'
fails l1_update a.qcow2 'write 0 64k'
fails l2_alloc_write a.qcow2 'write 0 64k'
fails refblock_load a.qcow2 'write 0 64k'
fails cluster_alloc a.qcow2 'write 0 64k'
fails write_compressed a.qcow2 'write -c 0 64k'
fails cow_write a.qcow2 'write 0 512'
fails cow_read over.qcow2 'write 1k 512'
fails cow_write over.qcow2 'write 1k 512'
fails flush_to_disk full.qcow2 'flush'
fails pwritev full.qcow2 'write 0 512'
fails l1_grow_write_table a.qcow2 'truncate 16T'
fails l1_grow_activate_table a.qcow2 'truncate 16T'
differs stderr 'the error is that of reading' "qemu-io --image-opts -c length $F=full.qcow2,file.inject-error.0.event=none,file.inject-error.0.errno=28"

# Rules.
R='driver=raw,file.driver=blkdebug,file.image.driver=file,file.image.filename=a.raw'
three="-c 'read -q 0 512' -c 'read -q 0 1k' -c 'read -q 512 512'"
for option in event=foo errno=0 errno=28 errno=x errno=-5 once=on once=x immediately=on sector=0 sector=1 sector=-1 sector=x state=0 state=1 state=2 \
  state=x foo=1; do
  same "qemu-io --image-opts $three $R,file.inject-error.0.event=none,file.inject-error.0.$option"
done
every="-c 'read -q 0 512' -c 'write -q 0 512' -c 'write -zq 0 512' -c 'discard -q 0 512' -c flush -c map"
for iotype in read write write-zeroes discard block-status foo; do
  same "qemu-io -t writeback --image-opts $every $R,file.inject-error.0.event=none,file.inject-error.0.iotype=$iotype"
done
differs stderr 'a failure of closing is told' "qemu-io -t writeback --image-opts $every $R,file.inject-error.0.event=none,file.inject-error.0.iotype=flush"
differs stderr 'a failure of closing is told' "qemu-io --image-opts $every -c 'alloc 0' -c 'truncate 1M' $R,file.inject-error.0.event=none"
for rules in inject-error.0.errno=5 inject-error.1.event=none inject-error.0.event=none,file.inject-error.2.event=none inject-error.event=none \
  inject-error=none inject-error.0.event=none,file.inject-error.0.errno=28,file.inject-error.1.event=none,file.inject-error.1.errno=12 \
  set-state.0.event=foo set-state.0.new-state=2 set-state.0.event=none,file.set-state.0.new-state=2 set-state.0.event=none; do
  same "qemu-io --image-opts $three $R,file.$rules"
done
reads="-c 'read -q 0 512' -c 'read -q 0 512' -c 'write -q 0 512' -c 'read -q 0 512'"
Q="-t writeback --image-opts $reads $F=full.qcow2,file.inject-error.0.event=read_aio,file.inject-error.0.errno=28"
same "qemu-io $Q,file.inject-error.0.once=on"
same "qemu-io $Q,file.inject-error.0.once=on,file.inject-error.1.event=write_aio,file.inject-error.1.errno=12,file.inject-error.1.once=on"
same "qemu-io $Q,file.inject-error.0.iotype=read,file.inject-error.1.event=write_aio,file.inject-error.1.errno=12,file.inject-error.1.iotype=write"
same "qemu-io $Q,file.inject-error.0.iotype=read,file.inject-error.0.state=2,file.set-state.0.event=read_aio,file.set-state.0.state=1,file.set-state.0.new_state=2"
same "qemu-io $Q,file.inject-error.0.iotype=read,file.inject-error.0.state=1,file.set-state.0.event=read_aio,file.set-state.0.state=1,file.set-state.0.new_state=2"
same "qemu-io $Q,file.inject-error.0.iotype=read,file.inject-error.0.once=on,file.inject-error.0.state=2,file.set-state.0.event=read_aio,file.set-state.0.new_state=2"
many="-c 'read -q 0 512' -c 'write -q 1 2' -c 'write -q 0 64k'  -c 'write -zq 0 128k' -c 'discard -q 0 256k' -c 'read -P 0xcd 0 1'"
for option in foo=1 align=x align=0 align=3 align=512 align=4096 max-transfer=0 max-transfer=4096 max-transfer=3G opt-write-zero=64k max-write-zero=64k \
  opt-discard=64k max-discard=64k max-discard=4G align=512,file.max-transfer=511 align=512,file.opt-discard=700 take-child-perms.0=write \
  unshare-child-perms.0=write config=nofile config= x-image=a.raw image=foo; do
  same "qemu-io --image-opts $many $R,file.$option"
done

# Names.
for name in blkdebug::a.qcow2 blkdebug:rules:a.qcow2 blkdebug:nofile:a.qcow2 blkdebug:a.qcow2 blkdebug: blkdebug:: blkdebug blkdebug::nofile \
  blkdebug::blkdebug::a.qcow2 blkdebug:rules:blkdebug:rules:a.qcow2 'blkdebug::json:{}'; do
  same "qemu-io -f qcow2 -c length -c 'read 0 512' '$name'"
done
for name in blkdebug::a.qcow2 a.qcow2 ./a.qcow2 file:a.qcow2 nofile blkdebug:a.qcow2; do
  same "qemu-io -f blkdebug -c length $name"
done
same "qemu-io -t writeback -f qcow2 -c 'read 0 512' -c 'read 0 512' blkdebug:rules:full.qcow2"
for options in driver=blkdebug,image.filename=a.qcow2 driver=blkdebug,image.driver=qcow2,image.file.filename=a.qcow2 \
  driver=blkdebug,image.driver=file,image.filename=a.qcow2 driver=blkdebug driver=blkdebug,image=x driver=blkdebug,filename=blkdebug::a.qcow2 \
  driver=qcow2,file.driver=blkdebug,file.filename=blkdebug::a.qcow2 file.driver=blkdebug,file.image.filename=a.qcow2; do
  same "qemu-io --image-opts -c length -c info -c 'read -v 0 16' -c map $options"
done
json() { same "qemu-io -c length -c 'read 0 512' -c 'read 0 512' 'json:$1'"; }
json '{"driver":"qcow2","file":{"driver":"blkdebug","inject-error":[{"event":"l2_load","errno":5,"once":true}],"image":{"driver":"file","filename":"full.qcow2"}}}'
json '{"driver":"qcow2","file":{"driver":"blkdebug","inject-error":[{"event":"l2_load","errno":5,"once":"x"}],"image":{"driver":"file","filename":"full.qcow2"}}}'
json '{"driver":"qcow2","file":{"driver":"blkdebug","image":"full.qcow2"}}'
config() { same "printf '%s\n' '$1' >config; qemu-io -t writeback -f qcow2 -c 'read 0 512' -c 'read 0 512' blkdebug:config:full.qcow2"; }
config ''
config '[foo]'
config 'x=1'
config '[inject-error]'
config '[inject-error]
event = "foo"'
config '[inject-error]
event = "l2_load"
foo = "1"'
config '[inject-error]
event = "l2_load"
errno = "x"'
config '[inject-error "a"]
event = "l2_load"'
config '[set-state]
event = "l2_load"'
config '[inject-error]
  event = "l2_load"
	errno = "28"
once = "on"'
config '[inject-error]
 # x
event = "l2_load"'
config '[inject-error]
event = "l2_load"
iotype = "x"'
config '[inject-error]
errno = "5"'
config '[inject-error]
event="l2_load"'
config '[inject-error]
event = "l2_load" # x
once = "on"
[set-state]
event = "l2_load"
new_state = "2"'
config '[inject-error]
foo'
config '[inject-error]
event = l2_load'
config '[suspend]
event = "l2_load"'

# Disks that keep nothing.
for options in driver=null-co driver=null-co,size=1M driver=null-aio,size=1M driver=null-co,size=1M,read-zeroes=on driver=null-co,latency-ns=-1 driver=null-co,foo=1 \
  driver=raw,file.driver=null-co,file.size=1M driver=raw,file.driver=null-co,file.filename=x driver=null-co,filename=null-co:// driver=null-co,size=7T \
  driver=null-aio,size=1M,latency-ns=1000000; do
  same "qemu-io --image-opts -c length -c map -c 'read -v 0 16' -c 'write 0 512' -c 'write -z 0 512' -c 'discard 0 512' -c flush -c 'alloc 0 4k' -c 'read 100G 5' -c 'write 100G 512' $options"
done
for name in null-co:// null-aio:// null-co:foo null-co null-co://x; do
  same "qemu-io -f raw -c length -c 'read -v 0 16' $name"
  same "qemu-io -c length $name"
done
same 'qemu-io --image-opts -c info driver=null-co,size=1M,read-zeroes=on | head -1'
same 'qemu-img info null-co://'
same 'qemu-img info --image-opts driver=null-co,size=1M'
same 'qemu-img info --image-opts driver=raw,file.driver=null-aio,file.size=1M'
same 'qemu-img create -f raw null-co:// 1M'
same 'qemu-img convert -n -O raw a.raw null-co://'
same 'qemu-img compare --image-opts driver=null-co,size=1M,read-zeroes=on driver=null-co,size=1M,read-zeroes=on'
same 'qemu-img map blkdebug::full.qcow2'
same 'qemu-img map --output=json blkdebug::full.qcow2'
same 'qemu-img check blkdebug::full.qcow2'
same 'qemu-img create -f qcow2 blkdebug::new.qcow2 1M'
differs stdout 'the size on disk is that of the image' 'qemu-img info blkdebug::a.qcow2'
differs stdout 'the size on disk is that of the image' 'qemu-img info blkdebug:rules:a.qcow2'

setup_vm_state() {
  qemu-img create -q -f qcow2 a.qcow2 1M
  qemu-img create -q -f qcow2 -o cluster_size=512 small.qcow2 1000k
  qemu-img create -q -f qcow2 -o extended_l2=on ext.qcow2 1M
  qemu-img create -q -f qcow2 -o compat=0.10 v2.qcow2 1M
  qemu-img create -q -f qcow2 -o data_file=d.raw data.qcow2 1M
  qemu-io -f qcow2 -c 'write -P 3 0 1M' a.qcow2
  qemu-img create -q -f qcow2 -b a.qcow2 -F qcow2 over.qcow2 64k
  qemu-img create -q a.raw 1M
  qemu-io -f qcow2 -c 'write -b -P 9 0 100k' a.qcow2
  cp a.qcow2 theirs.qcow2
}

group vm_state
for image in a small ext v2 over; do
  same "qemu-io -c 'write -b -P 7 0 64k' -c 'read -b -P 7 0 64k' -c 'read -b -P 0 64k 3M' $image.qcow2; qemu-img check $image.qcow2 | head -2"
  same "qemu-io -c 'write -b -P 7 1k 512' -c 'write -b -P 8 100k 65k' -c 'read -b -P 0 2k 98k' $image.qcow2"
  same "qemu-io -c 'write -b -P 7 1536 1M' $image.qcow2; qemu-io -c 'read -b -P 7 1536 1M' -c 'read -b -v 1k 1k' $image.qcow2"
  same "qemu-io -c 'write -q -b -P 7 0 1M' -c 'write -q -P 1 0 64k' $image.qcow2; qemu-io -c 'read -P 1 0 64k' $image.qcow2; qemu-img map --output=json $image.qcow2 | tail -1 | cut -c 1-30"
  same "qemu-io -c 'write -q -b -P 7 0 64k' $image.qcow2; qemu-img snapshot -c s $image.qcow2; qemu-img check $image.qcow2 | head -1"
done
same "qemu-io -c 'write -b -P 7 0 64k' -c 'read -b 0 64k' -f raw a.raw"
same "qemu-io -r -c 'write -b 0 64k' -c 'read -b -P 9 0 100k' a.qcow2"
same "qemu-io -c 'read -b -P 9 0 100k' -c 'read -b -P 0 100k 28k' theirs.qcow2"
differs stdout 'the state does not become a part of the disk' \
  "qemu-io -c 'write -b -q 0 64k' a.qcow2; qemu-img resize -q a.qcow2 2G; qemu-io -c 'read -P 0 1M 100M' -c 'read -P 0 512M 1M' a.qcow2; qemu-img check a.qcow2 | head -1"
