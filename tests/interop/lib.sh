# Shared by the interop tests: a fresh directory, the peers, and a few checks. Source it with the program as $1.
set -euo pipefail
coimg=$(readlink -f "${1:?usage: $0 COIMG}")
PATH=$PATH:/sbin:/usr/sbin
for tool in qemu-img qemu-io; do
  command -v "$tool" >/dev/null || { echo "skipped: no $tool"; exit 77; }
done
work=$(mktemp -d "${TMPDIR:-/var/tmp}/coimg-interop.XXXXXX")
trap 'rm -rf "$work"' EXIT
cd "$work"

fail() {
  echo "FAILED: $*" >&2
  exit 1
}

# Of stdin.
digest() { sha256sum | cut -d' ' -f1; }

# content IMAGE FORMAT: a digest of what the guest sees, as qemu-img reads it.
content() {
  qemu-img convert -f "$2" -O raw "$1" content.tmp
  digest <content.tmp
}

# our_content IMAGE FORMAT: the same, as coimg reads it.
our_content() {
  "$coimg" convert -f "$2" -O raw "$1" content.tmp
  digest <content.tmp
}

# same_content NAME IMAGE FORMAT DIGEST
same_content() {
  local ours
  ours=$(our_content "$2" "$3")
  [ "$ours" = "$4" ] || fail "$1: coimg reads other bytes from $2 than qemu-img"
}

# Chooses the I/O engine for what follows, unless COIMG_AIO has. Not strictly by turns, which would give a step of a loop
# the same one each time: by the ones in the number of the turn.
given_engine=${COIMG_AIO:-}
engine_turn=0
next_engine() {
  [ -z "$given_engine" ] || return 0
  local engines=(threads io_uring) rest odd=0
  for ((rest = ++engine_turn; rest > 0; rest >>= 1)); do odd=$((odd ^ (rest & 1))); done
  export COIMG_AIO=${engines[odd]}
}

# sound NAME IMAGE: both programs find nothing wrong. The next I/O engine takes its turn.
sound() {
  next_engine
  qemu-img check -q -f qcow2 "$2" || fail "$1: qemu-img check finds fault with $2"
  "$coimg" check -q -f qcow2 "$2" || fail "$1: coimg check finds fault with $2"
}

# Writes patterns, zeros and discards all over IMAGE of 8 MiB; the same for the same seed.
scribble() {
  local image=$1 format=$2 seed=$3 commands=()
  RANDOM=$seed
  for ((i = 0; i < 40; i++)); do
    local offset=$(((RANDOM * 32768 + RANDOM) % 8000000 / 512 * 512))
    local length=$(((RANDOM % 300 + 1) * 512))
    case $((RANDOM % 6)) in
      0) commands+=(-c "write -z $offset $length") ;;
      1) commands+=(-c "write -z -u $offset $length") ;;
      2) commands+=(-c "discard $offset $length") ;;
      *) commands+=(-c "write -P $((RANDOM % 255 + 1)) $offset $length") ;;
    esac
  done
  qemu-io -f "$format" -d unmap "${commands[@]}" "$image" >/dev/null
}
