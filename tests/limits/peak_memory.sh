#!/usr/bin/env bash
# Peak memory stays below 64 MiB, whatever the cluster size and the number of requests: peak_memory.sh COIMG
set -eu
coimg=$(readlink -f "${1:?usage: peak_memory.sh COIMG}")
[ -x /usr/bin/time ] || { echo "SKIP: needs the program time"; exit 77; }
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
limit_kib=65536 failed=0

# peak NAME COMMAND...
peak() {
  local name=$1 kib
  shift
  /usr/bin/time -o peak.txt -f '%M' "$@" >/dev/null
  kib=$(tail -n 1 peak.txt)
  printf '%6d KiB  %s\n' "$kib" "$name"
  if [ "$kib" -ge "$limit_kib" ]; then
    echo "^^^^^^ more than $limit_kib KiB"
    failed=1
  fi
}

# Bytes that compress, but not to nothing: base64 of random ones; and some that do not.
{ head -c 72M /dev/urandom | base64 -w 0; head -c 32M /dev/urandom; } >source.raw

for type in zlib zstd; do
  for cluster in 64k 1M 2M; do
    options="compression_type=$type,cluster_size=$cluster"
    image=$type.$cluster.qcow2
    peak "raw -> $image -c" "$coimg" convert -m 16 -c -O qcow2 -o "$options" source.raw "$image"
    peak "$image -> raw" "$coimg" convert -m 16 -O raw "$image" out
    peak "$image -> -c" "$coimg" convert -m 16 -c -O qcow2 -o "$options" "$image" out
    peak "compare raw with $image" "$coimg" compare source.raw "$image"
    peak "compare $image with itself" "$coimg" compare "$image" "$image"
    peak "checksum $image" "$coimg" checksum "$image"
    peak "raw -> $image -c --verify" "$coimg" convert -m 16 -c --verify -O qcow2 -o "$options" source.raw copy
    peak "check $image" "$coimg" check -q "$image"
    rm -f "$image" out copy
  done
done
for cluster in 512 64k 2M; do
  peak "raw -> $cluster" "$coimg" convert -m 16 -O qcow2 -o "cluster_size=$cluster" source.raw out
  peak "$cluster -> $cluster" "$coimg" convert -m 16 -O qcow2 -o "cluster_size=$cluster" out copy
  rm -f out copy
done

# Nothing grows with the size of the disk: check, which counts all clusters, least of all where they are small.
peak "create 256 GiB of 4 KiB clusters" \
  "$coimg" create -q -f qcow2 -o preallocation=metadata,cluster_size=4k small_clusters.qcow2 256G
peak "check 256 GiB of 4 KiB clusters" "$coimg" check -q small_clusters.qcow2
rm small_clusters.qcow2
limit_kib=$((20 << 10))
peak "create 1 TiB" "$coimg" create -q -f qcow2 -o preallocation=metadata full.qcow2 1T
for command in info check map measure; do
  options=()
  [ "$command" != measure ] || options=(-O qcow2)
  peak "$command 1 TiB, all clusters" "$coimg" "$command" "${options[@]}" full.qcow2
done
limit_kib=65536
rm full.qcow2
"$coimg" create -q -f qcow2 -o preallocation=metadata,cluster_size=2M large.qcow2 1T
peak "1 TiB -> raw" "$coimg" convert -O raw large.qcow2 out
peak "1 TiB -> qcow2" "$coimg" convert -O qcow2 large.qcow2 copy
peak "compare 1 TiB" "$coimg" compare large.qcow2 copy
peak "checksum 1 TiB" "$coimg" checksum large.qcow2
peak "check 1 TiB" "$coimg" check -q large.qcow2
peak "map 1 TiB" "$coimg" map --output=json large.qcow2

# The largest L1 table there is has 32 MiB, and each image keeps its own. An empty disk takes no time all the same.
limit_kib=$((65536 + 32768))
"$coimg" create -q -f qcow2 -o cluster_size=2M largest.qcow2 2E
peak "2 EiB -> qcow2" timeout 60 "$coimg" convert -O qcow2 -o cluster_size=2M largest.qcow2 copy
peak "compare 2 EiB" timeout 60 "$coimg" compare largest.qcow2 copy
peak "checksum 2 EiB" timeout 60 "$coimg" checksum largest.qcow2
peak "check 2 EiB" timeout 60 "$coimg" check -q largest.qcow2
peak "map 2 EiB" timeout 60 "$coimg" map --output=json largest.qcow2
exit "$failed"
