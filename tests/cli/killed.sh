#!/bin/bash
# Kills commands at random moments: a target is there as a whole or not at all, and nothing else is left.
#     killed.sh COIMG [KILLS]
# For each four that die at once (SIGKILL) a fifth one is asked to stop (SIGTERM).
set -u
coimg=$(realpath "${1:?usage: killed.sh COIMG [KILLS]}")
kills=${2:-200}

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
cd "$scratch" || exit 1
printf 'seed %s\n' "${SEED:=$RANDOM}"
RANDOM=$SEED

seq 2000000 | head -c 12M >source.raw
truncate -s 16M source.raw
"$coimg" create -q -f qcow2 empty.qcow2 4M || exit 1

fail() { printf 'FAILED: %s\n' "$*"; ls -lA; exit 1; }

# Each way has a command and, in `sound`, what has to hold of the target if it is there.
convert() { exec "$coimg" convert -f raw "$@" source.raw "$target"; }
plain() { convert -O raw; }
qcow2() { convert -O qcow2; }
durable() { convert -O qcow2 -t writeback; }
compressed() { convert -O qcow2 -c; }
with_data_file() { convert -O qcow2 -o data_file=t.data; }
add_cow() { convert -O add-cow -o image_file=t.data; }
dd_qcow2() { exec "$coimg" dd -f raw -O qcow2 bs=1M if=source.raw of="$target"; }
create_full() { exec "$coimg" create -q -f qcow2 -o preallocation=full "$target" 4M; }
ways=(plain qcow2 durable compressed with_data_file add_cow dd_qcow2 create_full)

sound() {
  local source=source.raw
  [ "$1" = create_full ] && source=empty.qcow2
  "$coimg" compare -q "$source" "$target" || fail "$1: the target is not whole"
}

# run WAY SIGNAL MICROSECONDS
run() {
  ("$1") & local pid=$!
  sleep "$(printf '%d.%06d' $(($3 / 1000000)) $(($3 % 1000000)))"
  kill "-$2" $pid
  wait $pid
} 2>/dev/null

declare -A duration_us
for way in "${ways[@]}"; do
  target=target
  start=${EPOCHREALTIME/./}
  ("$way") || fail "$way does not work"
  duration_us[$way]=$((${EPOCHREALTIME/./} - start))
  sound "$way"
  rm -f target t.data
done

appeared=0 killed=0
for ((i = 0; i < kills * 5 / 4; i++)); do
  way=${ways[i % ${#ways[@]}]}
  signal=KILL
  [ $((i % 5)) -eq 4 ] && signal=TERM
  over=$((RANDOM % 2))
  target=target
  [ "$over" = 1 ] && { echo old >target; echo old >old; }
  moment=$(((RANDOM * 32768 + RANDOM) % (${duration_us[$way]} * 12 / 10)))
  run "$way" "$signal" "$moment"
  status=$?
  [ "$status" -ne 0 ] && killed=$((killed + 1))

  if [ "$over" = 1 ] && cmp -s target old; then
    : # as it was
  elif [ -e target ]; then
    appeared=$((appeared + 1))
    sound "$way"
  elif [ "$over" = 1 ]; then
    fail "$way: the old file is gone"
  elif [ "$status" -eq 0 ]; then
    fail "$way: there is no target"
  fi
  # The data file has its place before the image that names it. A file that is put over another one has a second name
  # between two system calls.
  for name in $(ls -A); do
    case $name in
      source.raw | empty.qcow2 | target | old | t.data) ;;
      .target.* | .t.data.*) [ "$over" = 1 ] || fail "$way: $name is left" ;;
      *) fail "$way: $name is left" ;;
    esac
  done
  rm -f target old t.data .target.* .t.data.*
done
echo "$i runs, $killed of them stopped, $appeared targets, all whole"
[ "$killed" -gt $((kills / 2)) ] && [ "$appeared" -gt 0 ]
