#!/usr/bin/env bash
# What convert writes depends on the source and the options only: not on the number of requests in flight, on the I/O
# engine, or on who is faster. With -W it may, but the content may not.
. "$(dirname "$0")/lib.sh"

# same ARGUMENT...: one file, whatever the number of requests is, with either I/O engine. It is left in first.
same() {
  local engine requests
  rm -f first
  for engine in threads io_uring; do
    for requests in $(seq 16); do
      rm -f out out.img
      COIMG_AIO=$engine "$coimg" convert -m "$requests" "$@" out
      [ ! -e out.img ] || cat out.img >>out # an add-cow image is two files
      if [ -e first ]; then
        cmp first out || fail "convert -m $requests $*: other bytes with $engine"
      else
        mv out first
      fi
    done
  done
}

# Of files, random bytes, written zeros and holes; then small writes all over its first 8 MiB.
part() {
  { tar -C /usr -cf - bin 2>/dev/null | tail -c +"$1" || true; } | head -c 4M # which closes the pipe early
  head -c 1M /dev/urandom
  head -c 1M /dev/zero
}
{ part 1; part 20M; part 40M; } >source.raw
truncate -s 21000k source.raw
part 60M | dd of=source.raw bs=1M seek=20 conv=notrunc status=none
scribble source.raw raw 11
# Clusters in any order, holes between them, and zero clusters.
qemu-img convert -W -m 16 -f raw -O qcow2 -o cluster_size=4k source.raw source.qcow2
scribble source.qcow2 qcow2 12
"$coimg" convert -c -O qcow2 source.qcow2 compressed.qcow2
truncate -s 20M base.raw
dd if=source.raw of=base.raw bs=1M count=10 skip=3 seek=3 conv=notrunc status=none
"$coimg" create -q -f qcow2 -b base.raw -F raw overlay.qcow2 25M
scribble overlay.qcow2 qcow2 13

# The clusters of a qcow2 file have an order, which compressed ones of any length depend on most.
same -f raw -O qcow2 -c source.raw
same -f raw -O qcow2 -o cluster_size=512 source.raw
for options in cluster_size=64k cluster_size=2M extended_l2=on compat=0.10 cluster_size=4k,preallocation=metadata; do
  same -f raw -O qcow2 -o "$options" source.raw
done
same -f raw -O qcow2 -S 0 source.raw
for options in compression_type=zstd compression_type=zstd,cluster_size=2M cluster_size=4k compat=0.10; do
  same -f raw -O qcow2 -c -o "$options" source.raw
done
for level in 1 2 5; do
  same -f raw -O qcow2 -c --compression-level "$level" source.raw
done
for source in source.qcow2 compressed.qcow2 overlay.qcow2; do
  same -f qcow2 -O qcow2 "$source"
  same -f qcow2 -O qcow2 -c "$source"
done
same -f qcow2 -O qcow2 -B base.raw -F raw overlay.qcow2
same -f raw -O qcow2 source.raw base.raw
same -f raw -O add-cow -B base.raw -F raw source.raw

# A raw file has no order but the guest's: -W changes nothing.
for source in source.raw source.qcow2 compressed.qcow2 overlay.qcow2; do
  for options in "" "-S 0"; do
    # shellcheck disable=SC2086 # no option or two words
    same -O raw -f "${source#*.}" $options "$source"
    mv first ordered
    # shellcheck disable=SC2086
    same -W -O raw -f "${source#*.}" $options "$source"
    cmp ordered first || fail "convert -W $source to raw: other bytes than without -W"
  done
done

# Elsewhere -W changes the order, and nothing that the guest sees.
for options in "" -c "-o cluster_size=512" "-c -o compression_type=zstd" "-o extended_l2=on"; do
  for requests in 2 16; do
    next_engine
    # shellcheck disable=SC2086
    "$coimg" convert -W -m "$requests" -f raw -O qcow2 $options source.raw out
    sound "convert -W $options" out
    "$coimg" compare -q -f raw -F qcow2 source.raw out || fail "convert -W -m $requests $options: other content"
  done
done
