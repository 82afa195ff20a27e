# A root file system into compressed clusters; the last column is the size of our file, where 1 is that of theirs.
# shellcheck shell=bash
need root.raw
heading compress
for flags in '' '-W -m 16'; do
  read -ra reference_flags <<<"$flags"
  for type in zlib zstd; do
    convert "$few" "raw -> qcow2 -c, $type${flags:+, qemu-img $flags}" root.raw -f raw -c -O qcow2 -o compression_type=$type
  done
  our_flags=(--compression-level 5) # what is as small as theirs to half a per cent
  convert "$few" "raw -> qcow2 -c, zlib level 5${flags:+, qemu-img $flags}" root.raw -f raw -c -O qcow2
  our_flags=()
done
rm -f out.theirs out.ours
