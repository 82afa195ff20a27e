# Compressed clusters, as qemu-img writes them, back into a raw file.
# shellcheck shell=bash
need root.zlib.qcow2 root.zstd.qcow2
heading decompress
for flags in '' '-W -m 16'; do
  read -ra reference_flags <<<"$flags"
  for type in zlib zstd; do
    convert "$pairs" "$type -> raw${flags:+, qemu-img $flags}" root.$type.qcow2 -f qcow2 -O raw
  done
done
rm -f out.theirs out.ours
