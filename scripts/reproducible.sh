#!/usr/bin/env bash
# Builds both binaries twice, from two copies of the source in two folders, and
# compares them byte by byte.
set -euo pipefail
cd "$(dirname "$0")/.."
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

for copy in one two; do
  mkdir -p "$work/$copy"
  git ls-files -z --cached --others --exclude-standard | tar --null -T - -cf - | tar -C "$work/$copy" -xf -
  make -s -C "$work/$copy" build VERSION=check COMMIT=check
done
cmp "$work/one/bin/rea-agent" "$work/two/bin/rea-agent"
cmp "$work/one/bin/rea-server" "$work/two/bin/rea-server"
echo "reproducible: two builds in two folders are the same, byte by byte"
