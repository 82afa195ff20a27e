#!/usr/bin/env bash
# Every header compiles on its own. $1 is the compiler, the rest its flags.
set -euo pipefail
cd "$(dirname "$0")/../.."
find coroutine block formats cmd -name '*.h' -print0 | sort -z |
  xargs -0 -n 1 -P "$(nproc)" "$@" -std=gnu++23 -fsyntax-only -Wall -Wextra -I. -D_GNU_SOURCE -x c++ -include /dev/null 2>&1 |
  { ! grep -E 'error|warning: [^#]' | grep -v 'pragma once'; }
