# A disk of data, zeros and holes from one format to another; and next to cp, which need not know any.
# shellcheck shell=bash
need mix.raw mix.qcow2
heading convert
reference_flags=()
convert "$pairs" 'raw -> qcow2' mix.raw -f raw -O qcow2
convert "$pairs" 'qcow2 -> raw' mix.qcow2 -f qcow2 -O raw
convert "$few" 'raw -> qcow2 -c' mix.raw -f raw -c -O qcow2
reference_flags=(-W -m 16)
convert "$pairs" 'raw -> qcow2, qemu-img -W -m 16' mix.raw -f raw -O qcow2
convert "$pairs" 'qcow2 -> raw, qemu-img -W -m 16' mix.qcow2 -f qcow2 -O raw
convert "$few" 'raw -> qcow2 -c, qemu-img -W -m 16' mix.raw -f raw -c -O qcow2
reference_flags=()
convert "$pairs" 'qcow2 -> qcow2' mix.qcow2 -f qcow2 -O qcow2
convert "$pairs" 'raw -> raw' mix.raw -f raw -O raw
reference_flags=(-W -m 16)
convert "$pairs" 'qcow2 -> qcow2, qemu-img -W -m 16' mix.qcow2 -f qcow2 -O qcow2
convert "$pairs" 'raw -> raw, qemu-img -W -m 16' mix.raw -f raw -O raw
for source in raw qcow2; do
  for target in raw qcow2; do
    theirs=(cp --sparse=auto mix.raw out.theirs)
    ours=("$coimg" convert -f "$source" -O "$target" "mix.$source" out.ours)
    side_by_side "$pairs" 1 "$source -> $target, cp --sparse=auto"
  done
done
rm -f out.theirs out.ours
