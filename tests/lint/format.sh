#!/usr/bin/env bash
# Fails, naming the places, when a source is not formatted as .clang-format says.
set -euo pipefail
cd "$(dirname "$0")/../.."
git ls-files '*.cc' '*.h' | xargs clang-format-19 --dry-run --Werror
