#!/usr/bin/env bash
# The manual pages are sound mdoc(7). usage: man_lint.sh [SOURCES]
set -euo pipefail
sources=${1:-$(dirname "$(readlink -f "$0")")/../..}
command -v mandoc >/dev/null || { echo "SKIP: there is no mandoc"; exit 77; }
if ! mandoc -Tlint -W warning "$sources"/man/*; then exit 1; fi
