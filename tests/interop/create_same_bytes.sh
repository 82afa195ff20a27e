#!/usr/bin/env bash
# New images are equal to those of qemu-img 7.2, to the byte; what one refuses, the other does with the same words.
. "$(dirname "$0")/lib.sh"

qemu-img create -q -f qcow2 base.qcow2 3M
mkdir theirs ours

# same OPTIONS SIZE [ARGUMENT...]: runs both, each in its own directory.
same() {
  local options=$1 size=$2
  shift 2
  next_engine
  rm -f theirs/* ours/*
  local words=(create -f qcow2 -o "$options" "$@" t.qcow2)
  [ -z "$size" ] || words+=("$size")
  (cd theirs && qemu-img "${words[@]}" >../theirs.out 2>../theirs.err) && theirs=0 || theirs=$?
  (cd ours && "$coimg" "${words[@]}" >../ours.out 2>../ours.err) && ours=0 || ours=$?
  [ $theirs = $ours ] || fail "${words[*]}: exit $ours, not $theirs: $(cat ours.err)"
  cmp -s theirs.out ours.out || fail "${words[*]}: prints '$(cat ours.out)'"
  cmp -s <(sed 's/^qemu-img: //' theirs.err) <(sed 's/^coimg: //' ours.err) ||
    fail "${words[*]}: says '$(cat ours.err)', not '$(cat theirs.err)'"
  [ $theirs != 0 ] || cmp theirs/t.qcow2 ours/t.qcow2 || fail "${words[*]}: other bytes"
}

for cluster in 512 1k 4k 16k 64k 128k 2M; do
  for size in 0 1 512 1M 10G; do same "cluster_size=$cluster" $size; done
  same "cluster_size=$cluster,compat=0.10" 1G
  same "cluster_size=$cluster" "" -b ../base.qcow2 -F qcow2
  same "cluster_size=$cluster,compat=0.10" "" -b ../base.qcow2 -F qcow2
  for width in 1 2 4 8 32 64; do same "cluster_size=$cluster,refcount_bits=$width" 5G; done
done
# L1 tables that one refcount block does not cover, and that make the refcount table move.
same cluster_size=512 16G
same cluster_size=512 100G
same cluster_size=512,refcount_bits=64 40G
same cluster_size=512,refcount_bits=1 128G
same cluster_size=512 129G
same compression_type=zstd,lazy_refcounts=on 1G
same compat=v3 2P
same compat=v3 3P
same cluster_size=512,preallocation=metadata 40M
for mode in metadata falloc full; do
  for cluster in 512 4k 64k 2M; do
    for size in 0 300k 3M; do same "cluster_size=$cluster,preallocation=$mode" $size; done
  done
  for width in 1 64; do same "cluster_size=512,refcount_bits=$width,preallocation=$mode" 9M; done
  same "compat=0.10,preallocation=$mode" 10000384
  for size in 8M 10000384; do same "extended_l2=on,cluster_size=16k,preallocation=$mode" $size; done
done
same extended_l2=on 1M
same extended_l2=on,cluster_size=16k 700M
for options in "" ,data_file_raw=on ,preallocation=metadata ,preallocation=falloc ,preallocation=full ,extended_l2=on \
  ,cluster_size=4k,data_file_raw=on ,cluster_size=512,preallocation=metadata ,extended_l2=on,data_file_raw=on; do
  same "data_file=data$options" 300k
  same "data_file=data$options" 5000k
done
same data_file=data "" -b ../base.qcow2 -F qcow2

for options in cluster_size=256 cluster_size=4M refcount_bits=3 refcount_bits=128 refcount_bits=0 \
  refcount_bits=8,compat=0.10 lazy_refcounts=on,compat=0.10 extended_l2=on,cluster_size=8k extended_l2=on,compat=0.10 \
  compression_type=lz4 compression_type=zstd,compat=0.10 compat=0.9 data_file_raw=on data_file=z,compat=0.10 \
  preallocation=bogus encrypt.format=luks encrypt.format=foo encryption=on cluster_size=256,compat=0.9 \
  compression_type=lz4,preallocation=bogus compat=0.9,preallocation=bogus refcount_bits=3,cluster_size=3k \
  lazy_refcounts=on,compat=0.10,refcount_bits=3 extended_l2=on,compat=0.10,lazy_refcounts=on; do
  same "$options" 1M
done
same preallocation=full "" -b ../base.qcow2 -F qcow2
same compat=v3 1M -u -F qcow2 -b "$(printf 'x%.0s' {1..1024})"
same cluster_size=512 1M -u -F qcow2 -b "$(printf 'x%.0s' {1..500})"
