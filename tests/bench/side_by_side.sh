# Times two commands in turns, and prints a row of the table. Sourced by bench.sh, which sets json and reference.
# shellcheck shell=bash

# heading SUITE: what stands above the rows.
heading() {
  $json || printf '%-42s %7s  %21s  %19s  %21s\n' "$1" 'ratio' 'qemu-img / coimg' 'peak memory' 'output'
}

# Runs a command many times, for one that takes a few milliseconds.
# shellcheck disable=SC2016 # for the shell that runs it
many='for ((i = 0; i < $0; i++)); do "$@"; done'

# measure OUTPUT TIMES COMMAND...: prints the microseconds of all TIMES, and peak KiB.
measure() {
  local output=$1 times=$2 begin end
  shift 2
  [ "$times" = 1 ] || set -- bash -c "$many" "$times" "$@"
  sync -f . # or one run pays for writing back what the one before it left dirty
  rm -f "$output" # just before: a hypervisor may soon take back memory that is free, which costs whoever needs it next
  begin=${EPOCHREALTIME/[.,]/}
  /usr/bin/time -f '%M' -o peak.txt "$@" >/dev/null
  end=${EPOCHREALTIME/[.,]/}
  echo $((end - begin)) "$(cat peak.txt)"
}

median() { sort -n | awk '{v[NR]=$1} END {print (NR%2) ? v[(NR+1)/2] : (v[NR/2]+v[NR/2+1])/2}'; }

# duration SECONDS: in a unit that suits it.
duration() { awk -v s="$1" 'BEGIN {if (s < 0.1) printf "%7.2f ms", s * 1000; else printf "%8.2f s", s}'; }

# amount KIB: in a unit that suits it; blank for none.
amount() {
  if [ -z "$1" ]; then
    printf '%10s' ''
  elif [ "$1" -lt 1024 ]; then
    printf '%6d KiB' "$1"
  else
    printf '%6d MiB' $(($1 / 1024))
  fi
}

# side_by_side PAIRS TIMES NAME: times the commands in the arrays `theirs` and `ours`, TIMES of each at once. What they
# write is out.theirs and out.ours.
side_by_side() {
  local pairs=$1 times=$2 name=$3 i a am b bm
  : >theirs.txt
  : >ours.txt
  : >ratios.txt
  rm -f out.theirs out.ours
  for ((i = 0; i <= pairs; i++)); do
    # A B B A B A A B: whoever comes second finds another machine than who comes first, and a machine that stalls at every
    # third or fourth run must not meet the same one each time.
    if (((i ^ i >> 1 ^ i >> 2 ^ i >> 3 ^ i >> 4) % 2)); then
      read -r a am < <(measure out.theirs "$times" "${theirs[@]}")
      read -r b bm < <(measure out.ours "$times" "${ours[@]}")
    else
      read -r b bm < <(measure out.ours "$times" "${ours[@]}")
      read -r a am < <(measure out.theirs "$times" "${theirs[@]}")
    fi
    [ "$i" -eq 0 ] && continue # the first pair warms up
    echo "$a" "$am" >>theirs.txt
    echo "$b" "$bm" >>ours.txt
    awk -v a="$a" -v b="$b" 'BEGIN {print a / b}' >>ratios.txt
  done
  print_row "$name" "$times"
}

# seconds FILE TIMES: the median of one run.
seconds() { cut -d' ' -f1 "$1" | median | awk -v times="$2" '{printf "%.5f\n", $1 / 1e6 / times}'; }
peak() { cut -d' ' -f2 "$1" | sort -n | tail -1; }
# size FILE: in KiB; nothing when there is no such file.
size() { if [ -e "$1" ]; then du -k "$1" | cut -f1; fi; }

print_row() {
  local name=$1 times=$2 ratio their_seconds our_seconds their_size our_size size_ratio='' peer
  ratio=$(median <ratios.txt)
  their_seconds=$(seconds theirs.txt "$times")
  our_seconds=$(seconds ours.txt "$times")
  their_size=$(size out.theirs)
  our_size=$(size out.ours)
  [ -z "$their_size" ] || size_ratio=$(awk -v a="$their_size" -v b="$our_size" 'BEGIN {printf "%.3f", b / a}')
  peer=$(basename "${theirs[0]}")
  peer=${peer//-/_}
  if $json; then
    printf '{"suite": "%s", "work": "%s", "ratio": %.2f, "%s_s": %s, "coimg_s": %s, "%s_peak_kib": %s, "coimg_peak_kib": %s' \
      "$suite" "$name" "$ratio" "$peer" "$their_seconds" "$our_seconds" "$peer" "$(peak theirs.txt)" "$(peak ours.txt)"
    [ -z "$size_ratio" ] || printf ', "%s_output_kib": %s, "coimg_output_kib": %s, "output_ratio": %s' \
      "$peer" "$their_size" "$our_size" "$size_ratio"
    echo '}'
  else
    printf '%-42s %6.2fx %s %s %s %s %s %s %s\n' "$name" "$ratio" "$(duration "$their_seconds")" \
      "$(duration "$our_seconds")" "$(amount "$(peak theirs.txt)")" "$(amount "$(peak ours.txt)")" \
      "$(amount "$their_size")" "$(amount "$our_size")" "$size_ratio"
  fi
}

# convert PAIRS NAME SOURCE ARGUMENT...: the same conversion by both; qemu-img's has reference_flags too, and ours our_flags.
reference_flags=() our_flags=()
convert() {
  local pairs=$1 name=$2 source=$3
  shift 3
  cat "$source" >/dev/null # page cache warm
  theirs=("$reference" convert "${reference_flags[@]}" "$@" "$source" out.theirs)
  ours=("$coimg" convert "${our_flags[@]}" "$@" "$source" out.ours)
  side_by_side "$pairs" 1 "$name"
  "$coimg" compare -q "$source" out.ours
}

# both TIMES NAME ARGUMENT...: a command that writes nothing, or out.
both() {
  local times=$1 name=$2
  shift 2
  theirs=("$reference" "${@/#OUT/out.theirs}")
  ours=("$coimg" "${@/#OUT/out.ours}")
  side_by_side "$pairs" "$times" "$name"
}
