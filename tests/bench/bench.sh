#!/usr/bin/env bash
# Whole commands side by side with qemu-img, in one run: pairs A B B A, the median of the pairwise ratios, and peak memory.
# usage: bench.sh COIMG convert [--json] [--pairs N]
# N pairs of what takes a second or two, and varies most; a third of that where compressing takes long.
set -euo pipefail
coimg=$(readlink -f "${1:?usage: bench.sh COIMG convert [--json] [--pairs N]}")
shift
suite=${1:-convert}
[ $# -gt 0 ] && shift
json=false pairs=12
while [ $# -gt 0 ]; do
  case $1 in
    --json) json=true ;;
    --pairs) pairs=$2; shift ;;
    *) echo "bench.sh: unknown argument $1" >&2; exit 1 ;;
  esac
  shift
done
[ "$suite" = convert ] || { echo "bench.sh: no suite '$suite'; there is: convert" >&2; exit 1; }

PATH=$PATH:/sbin:/usr/sbin
work=$(mktemp -d "${COIMG_BENCH_DIR:-/var/tmp}/coimg-bench.XXXXXX")
trap 'rm -rf "$work"' EXIT
cd "$work"
reference=$(command -v qemu-img)

# 1.5 GiB: files of this machine, random bytes, written zeros and holes.
make_sample() {
  {
    { tar -C /usr -cf - lib bin 2>/dev/null || true; } | head -c 640M # tar ends by a closed pipe
    head -c 256M /dev/urandom
    head -c 128M /dev/zero
  } >mix.raw
  truncate -s 1536M mix.raw
}

# measure OUTPUT COMMAND...: prints seconds and peak KiB.
measure() {
  local output=$1
  shift
  sync -f . # or one run pays for writing back what the one before it left dirty
  rm -f "$output" # just before: a hypervisor may soon take back memory that is free, which costs whoever needs it next
  /usr/bin/time -f '%e %M' -o time.txt "$@" >/dev/null
  cat time.txt
}

median() { sort -n | awk '{v[NR]=$1} END {print (NR%2) ? v[(NR+1)/2] : (v[NR/2]+v[NR/2+1])/2}'; }

# side_by_side PAIRS NAME SOURCE ARGUMENT...
side_by_side() {
  local pairs=$1 name=$2 source=$3
  shift 3
  cat "$source" >/dev/null # page cache warm
  : >theirs.txt
  : >ours.txt
  : >ratios.txt
  local their_args=("${reference_flags[@]}")
  for ((i = 0; i <= pairs; i++)); do
    # A B B A: whoever comes second finds another machine than who comes first.
    if ((i % 2)); then
      read -r a am < <(measure out.theirs "$reference" convert "${their_args[@]}" "$@" "$source" out.theirs)
      read -r b bm < <(measure out.ours "$coimg" convert "$@" "$source" out.ours)
    else
      read -r b bm < <(measure out.ours "$coimg" convert "$@" "$source" out.ours)
      read -r a am < <(measure out.theirs "$reference" convert "${their_args[@]}" "$@" "$source" out.theirs)
    fi
    [ "$i" -eq 0 ] && continue # the first pair warms up
    echo "$a" "$am" >>theirs.txt
    echo "$b" "$bm" >>ours.txt
    awk -v a="$a" -v b="$b" 'BEGIN {print a / (b > 0.001 ? b : 0.001)}' >>ratios.txt
  done
  "$coimg" compare -q "$source" out.ours
  local ratio theirs ours their_mem our_mem their_size our_size
  ratio=$(median <ratios.txt)
  theirs=$(cut -d' ' -f1 theirs.txt | median)
  ours=$(cut -d' ' -f1 ours.txt | median)
  their_mem=$(cut -d' ' -f2 theirs.txt | sort -n | tail -1)
  our_mem=$(cut -d' ' -f2 ours.txt | sort -n | tail -1)
  their_size=$(du -k out.theirs | cut -f1)
  our_size=$(du -k out.ours | cut -f1)
  if $json; then
    printf '{"work": "%s", "ratio": %.2f, "qemu_img_s": %s, "coimg_s": %s, "qemu_img_peak_kib": %s, "coimg_peak_kib": %s, "qemu_img_output_kib": %s, "coimg_output_kib": %s}\n' \
      "$name" "$ratio" "$theirs" "$ours" "$their_mem" "$our_mem" "$their_size" "$our_size"
  else
    printf '%-34s %6.2fx  %7.2f s %7.2f s  %5d MiB %5d MiB  %6d MiB %6d MiB\n' "$name" "$ratio" "$theirs" "$ours" \
      $((their_mem / 1024)) $((our_mem / 1024)) $((their_size / 1024)) $((our_size / 1024))
  fi
}

make_sample
"$reference" convert -f raw -O qcow2 mix.raw mix.qcow2
few=$(((pairs + 2) / 3))
$json || printf '%s pairs, %s with -c; the ratio says how many times faster coimg is.\n%-34s %7s  %19s  %19s  %21s\n' "$pairs" "$few" 'convert' \
  'ratio' 'qemu-img / coimg' 'peak memory' 'output'
reference_flags=()
side_by_side "$pairs" 'raw -> qcow2' mix.raw -f raw -O qcow2
side_by_side "$pairs" 'qcow2 -> raw' mix.qcow2 -f qcow2 -O raw
side_by_side "$few" 'raw -> qcow2 -c' mix.raw -f raw -c -O qcow2
reference_flags=(-W -m 16)
side_by_side "$pairs" 'raw -> qcow2, qemu-img -W -m 16' mix.raw -f raw -O qcow2
side_by_side "$pairs" 'qcow2 -> raw, qemu-img -W -m 16' mix.qcow2 -f qcow2 -O raw
side_by_side "$few" 'raw -> qcow2 -c, qemu-img -W -m 16' mix.raw -f raw -c -O qcow2
