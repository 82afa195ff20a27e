#!/usr/bin/env bash
# Checksums: what other programs make of the disk as qemu-img shows it, the same for every image that holds it.
here=$(cd "$(dirname "$0")" && pwd)
. "$(dirname "$0")/lib.sh"
command -v python3 >/dev/null || { echo "skipped: no python3"; exit 77; }

algorithms=(sha256 blake2b)
if command -v xxhsum >/dev/null; then algorithms+=(xxh3); else echo "without xxh3: no xxhsum"; fi

# expect NAME DIGEST ARGUMENT...: the digest that `checksum ARGUMENT...` has to print.
expect() {
  local name=$1 expected=$2 line
  shift 2
  line=$("$coimg" checksum "$@") || fail "$name: checksum $* fails"
  [ "${line%%  *}" = "$expected" ] || fail "$name: checksum $* prints $line, not $expected"
}

# examine NAME RAW IMAGE...: all of them hold what RAW does.
examine() {
  local name=$1 raw=$2 algorithm tree
  next_engine
  shift 2
  for algorithm in "${algorithms[@]}"; do
    tree=$algorithm-tree:$("$here/tree_digest.py" "$algorithm" <"$raw")
    expect "$name" "$tree" -f raw -a "$algorithm" "$raw"
    for image in "$@"; do expect "$name" "$tree" -a "$algorithm" "$image"; done
  done
  for image in "$raw" "$@"; do
    expect "$name" "$(sha256sum <"$raw" | cut -d' ' -f1)" --flat "$image"
    expect "$name" "$(b2sum <"$raw" | cut -d' ' -f1)" --flat -a blake2b "$image"
    case ${algorithms[*]} in *xxh3*) expect "$name" "$(xxhsum -H2 <"$raw" | cut -d' ' -f1)" --flat -a xxh3 "$image" ;; esac
  done
}

seed=0
for length in 0 512 1023k 1M 1025k 3584k 8000k 8M; do
  seed=$((seed + 1))
  rm -f source.raw base.raw ./*.qcow2 ./*.add-cow ./*.img
  truncate -s 8M source.raw
  scribble source.raw raw "$seed"
  truncate -s "$length" source.raw
  qemu-img convert -f raw -O qcow2 source.raw plain.qcow2
  qemu-img convert -f raw -O qcow2 -c -o cluster_size=2M source.raw compressed.qcow2
  qemu-img convert -f raw -O qcow2 -S 0 -o cluster_size=512 source.raw full.qcow2
  images=(plain.qcow2 compressed.qcow2 full.qcow2)
  if [ "$length" != 0 ]; then
    "$coimg" convert -f raw -O add-cow source.raw disk.add-cow
    qemu-img create -q -f qcow2 -b plain.qcow2 -F qcow2 overlay.qcow2
    qemu-img create -q -f qcow2 -b overlay.qcow2 -F qcow2 overlay2.qcow2
    images+=(disk.add-cow overlay.qcow2 overlay2.qcow2)
  fi
  examine "$length bytes, seed $seed" source.raw "${images[@]}"

  # A part above and a part below, which is shorter.
  [ "$length" != 0 ] || continue
  cp source.raw base.raw
  truncate -s "$((RANDOM % 4 + 1))M" base.raw
  qemu-img create -q -f qcow2 -b base.raw -F raw top.qcow2 8M
  qemu-io -f qcow2 -c 'write -P 7 100k 200k' -c 'write -z 1M 300k' -c 'write -P 9 5M 1M' top.qcow2 >/dev/null
  qemu-img convert -f qcow2 -O raw top.qcow2 top.raw
  examine "$length bytes, seed $seed, with a backing file" top.raw top.qcow2
done

# The program that the manual shows.
sed -n '/^import hashlib/,/^\.Ed/p' "$here/../../man/coimg-checksum.1" | sed '/^\.Ed/d; s/\\e/\\/g' >manual.py
expect manual "sha256-tree:$(python3 manual.py <top.raw)" -f raw top.raw

# A list that sha256sum reads.
cp source.raw 'odd
name\here'
"$coimg" checksum -f raw --flat source.raw 'odd
name\here' >sums
sha256sum --quiet -c sums || fail "sha256sum does not read the list"

# What is empty takes no time, whatever its length.
truncate -s 1T empty.raw
qemu-img create -q -f qcow2 empty.qcow2 1T
start=${EPOCHREALTIME/./}
one=$("$coimg" checksum -f raw empty.raw)
two=$("$coimg" checksum empty.qcow2)
[ $((${EPOCHREALTIME/./} - start)) -lt 2000000 ] || fail "an empty TiB takes more than a second"
[ "${one%%  *}" = "${two%%  *}" ] || fail "two empty disks have different digests"
echo "all as other programs compute it"
