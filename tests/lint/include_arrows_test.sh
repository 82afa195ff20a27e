#!/usr/bin/env bash
# The tree keeps the arrows, and the check notices when one is turned round.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
"$here/include_arrows.sh" "$root"

copy=$(mktemp -d)
trap 'rm -rf "$copy"' EXIT
for edit in 'coroutine/io.h block/node.h' 'block/node.h formats/qcow2/qcow2.h' 'formats/qcow2/format.h cmd/cli.h' \
  'cmd/main.cc formats/qcow2/qcow2.h'; do
  read -r file include <<<"$edit"
  rm -rf "${copy:?}"/*
  cp -r "$root"/{coroutine,block,formats,cmd} "$copy"
  echo "#include \"$include\"" >>"$copy/$file"
  if "$here/include_arrows.sh" "$copy" >/dev/null; then
    echo "an include of $include in $file went unnoticed"
    exit 1
  fi
done
