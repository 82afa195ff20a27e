#!/usr/bin/env bash
# Internal snapshots: each step is done by one program or the other, both find the image sound, and both read the same
# from the disk and from every snapshot.
. "$(dirname "$0")/lib.sh"

RANDOM=41
programs=(qemu-img "$coimg")
declare -A kept # name -> digest of its content
disk=           # digest of the disk's

# At random one of the two.
either() { "${programs[RANDOM % 2]}" "$@"; }

snapshot_content() {
  "$1" convert -f qcow2 -l "snapshot.name=$2" -O raw image.qcow2 content.tmp
  digest <content.tmp
}

examine() {
  sound "$1" image.qcow2
  [ "$(our_content image.qcow2 qcow2)" = "$disk" ] || fail "$1: the disk's content"
  local name reader
  for name in "${!kept[@]}"; do
    for reader in "${programs[@]}"; do
      [ "$(snapshot_content "$reader" "$name")" = "${kept[$name]}" ] || fail "$1: content of snapshot $name for $reader"
    done
  done
  [ "$("$coimg" snapshot -l image.qcow2)" = "$(qemu-img snapshot -l image.qcow2)" ] || fail "$1: the lists differ"
}

change() {
  scribble image.qcow2 qcow2 "$1"
  disk=$(content image.qcow2 qcow2)
}

for options in "" cluster_size=4k,refcount_bits=4 cluster_size=512 compat=0.10 cluster_size=2M extended_l2=on; do
  kept=()
  qemu-img create -q -f qcow2 ${options:+-o "$options"} image.qcow2 8M
  change 1
  for step in 1 2 3 4; do
    either snapshot -c "s$step" image.qcow2
    kept[s$step]=$disk
    examine "$options: taken $step"
    change $((step + 10))
    examine "$options: written after $step"
  done
  for name in s3 s1 s4; do
    either snapshot -a "$name" image.qcow2
    disk=${kept[$name]}
    examine "$options: applied $name"
    change $((RANDOM + 100))
    examine "$options: written after applying $name"
  done
  for name in s2 s4 s1 s3; do
    either snapshot -d "$name" image.qcow2
    unset "kept[$name]"
    examine "$options: deleted $name"
    change $((RANDOM + 100))
  done
  examine "$options: all deleted"
done

# Compressed clusters are shared too.
qemu-img create -q -f raw plain.raw 8M
scribble plain.raw raw 7
"$coimg" convert -c -O qcow2 plain.raw image.qcow2
kept=()
disk=$(content image.qcow2 qcow2)
"$coimg" snapshot -c packed image.qcow2
kept[packed]=$disk
examine "compressed"
change 8
examine "compressed, written"
"$coimg" snapshot -a packed image.qcow2
disk=${kept[packed]}
examine "compressed, applied"
"$coimg" snapshot -d packed image.qcow2
unset 'kept[packed]'
examine "compressed, deleted"

# The size goes back with the disk.
qemu-img create -q -f qcow2 image.qcow2 4M
qemu-io -f qcow2 -c 'write -P 5 0 4M' image.qcow2 >/dev/null
"$coimg" snapshot -c small image.qcow2
qemu-img resize -q image.qcow2 6M
qemu-io -f qcow2 -c 'write -P 6 4M 2M' image.qcow2 >/dev/null
"$coimg" snapshot -c large image.qcow2
"$coimg" snapshot -a small image.qcow2
sound "smaller again" image.qcow2
[ "$(qemu-img info --output=json image.qcow2 | grep -c '"virtual-size": 4194304')" -eq 1 ] || fail "size after applying"
qemu-io -f qcow2 -c 'read -P 5 0 4M' image.qcow2 | grep -q 'verification failed' && fail "content after applying small"
"$coimg" snapshot -a large image.qcow2
sound "larger again" image.qcow2
qemu-io -f qcow2 -c 'read -P 6 4M 2M' image.qcow2 | grep -q 'verification failed' && fail "content after applying large"

# A refcount that cannot grow: nothing has changed, and nothing has leaked.
qemu-img create -q -f qcow2 -o refcount_bits=1 image.qcow2 8M
change 9
kept=()
if "$coimg" snapshot -c none image.qcow2 2>error.txt; then fail "a snapshot with 1-bit refcounts"; fi
grep -q '(Invalid argument)' error.txt || fail "the error for 1-bit refcounts: $(cat error.txt)"
examine "1-bit refcounts"
