#!/usr/bin/env bash
# The runtime, installed by itself, serves a project outside of this tree: installed.sh BUILD_DIRECTORY COMPILER VERSION
set -euo pipefail
build=$(readlink -f "${1:?usage: installed.sh BUILD_DIRECTORY COMPILER VERSION}")
compiler=$2 version=$3
root=$(cd "$(dirname "$0")/../../.." && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cp -r "$root/tests/coroutine/installed" "$work/project"
cd "$work"

# quietly COMMAND...: what it prints is of interest only when it fails.
quietly() { "$@" >log 2>&1 || { cat log; exit 1; }; }
configure() {
  cmake -S project -B "$1" -DCMAKE_PREFIX_PATH="$work/moved" -DCMAKE_CXX_COMPILER="$compiler" -DCMAKE_BUILD_TYPE=Release \
    -DWANTED_VERSION="$version" "${@:2}"
}

quietly cmake --install "$build" --component coroutine --prefix "$work/prefix"
mv prefix moved # it works from anywhere
for file in moved/include/coroutine/*; do
  case $file in *_private.h | *_impl.h) echo "not for users: $file"; exit 1 ;; esac
done
# The tree, its flags and where this machine has its libraries are no business of the user's.
if grep -rnE 'coimg_flags|-Wall|boost_context\.(so|a)|'"$root/" --include='*.cmake' moved/lib*; then exit 1; fi

quietly configure made
quietly cmake --build made
output=$(made/letters)
[ "$output" = axbycz ] || { echo "unexpected output: $output"; exit 1; }
if configure refused -DWANTED_VERSION=99.0 >log 2>&1; then
  echo "any version will do"
  exit 1
fi

# A sanitizer in the program and none in the runtime: the linker says so, or there would be false alarms.
for sanitizer in address:asan thread:tsan; do
  quietly configure "${sanitizer#*:}" -DCMAKE_CXX_FLAGS="-fsanitize=${sanitizer%:*}"
  if cmake --build "${sanitizer#*:}" --target letters >log 2>&1; then
    echo "a program with -fsanitize=${sanitizer%:*} was linked"
    exit 1
  fi
  grep -q "undefined.*coimg_runtime_built_with_${sanitizer#*:}" log || { cat log; exit 1; }
done
