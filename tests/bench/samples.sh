# The images that the benchmarks work on, each made when a suite first needs it. Sourced by bench.sh.
# shellcheck shell=bash

# need SAMPLE...: files of these names.
need() {
  local sample
  for sample in "$@"; do
    [ -e "$sample" ] || "make_${sample//./_}"
  done
}

# 1.5 GiB: files of this machine, random bytes, written zeros and holes.
make_mix_raw() {
  {
    { tar -C /usr -cf - lib bin 2>/dev/null || true; } | head -c 640M # tar ends by a closed pipe
    head -c 256M /dev/urandom
    head -c 128M /dev/zero
  } >mix.raw
  truncate -s 1536M mix.raw
}

make_mix_qcow2() {
  need mix.raw
  "$reference" convert -f raw -O qcow2 mix.raw mix.qcow2
}

# 400 MiB: a file system with programs and libraries, and some room.
make_root_raw() {
  mkdir root
  { tar -C /usr -cf - bin lib 2>/dev/null || true; } | head -c 330M | tar -C root -xf - 2>/dev/null || true # cut short
  mke2fs -q -t ext4 -N 60000 -d root root.raw 400M >mke2fs.txt
  rm -rf root
}

make_root_zlib_qcow2() {
  need root.raw
  "$reference" convert -c -f raw -O qcow2 root.raw root.zlib.qcow2
}

make_root_zstd_qcow2() {
  need root.raw
  "$reference" convert -c -f raw -O qcow2 -o compression_type=zstd root.raw root.zstd.qcow2
}

# 512 GiB, all of them with a place in the file, and none of them written.
make_large_qcow2() { "$reference" create -q -f qcow2 -o preallocation=metadata large.qcow2 512G; }

make_large_snapshot_qcow2() {
  need large.qcow2
  cp --sparse=always large.qcow2 large_snapshot.qcow2
  "$reference" snapshot -c one large_snapshot.qcow2
}

# As many bytes as the metadata of large.qcow2, in one piece.
make_metadata() {
  need large.qcow2
  head -c "$(($(du -k large.qcow2 | cut -f1) * 1024))" /dev/urandom >metadata
}

# 40,000 clusters with a hole behind each, written in any order.
make_fragmented_qcow2() {
  "$reference" create -q -f qcow2 -o cluster_size=4k fragmented.qcow2 1G
  seq 0 39999 | shuf | awk '{print "write -q -P 1 " $1 * 8192 " 4k"}' | qemu-io -t unsafe -f qcow2 fragmented.qcow2 >/dev/null
}

make_empty_qcow2() { "$reference" create -q -f qcow2 empty.qcow2 1T; }

# The top of a chain of nine, with 4 MiB of data in each but the first.
make_chain_9_qcow2() {
  local layer
  "$reference" create -q -f qcow2 chain.1.qcow2 1T
  for layer in {2..9}; do
    "$reference" create -q -f qcow2 -b chain.$((layer - 1)).qcow2 -F qcow2 "chain.$layer.qcow2"
    qemu-io -t unsafe -f qcow2 -c "write -q -P $layer ${layer}0G 4M" "chain.$layer.qcow2"
  done
}
