#!/usr/bin/env bash
# double.sh FILE: compiles the double of wevtapi.dll with the mingw-w64 of setup.sh.
set -euo pipefail
root=${REA_WINE:-${XDG_CACHE_HOME:-$HOME/.cache}/rea-wine}
source=$(cd "$(dirname "$0")" && pwd)/wevtapi/wevtapi.c
folder=$(dirname "$(readlink -m "$1")")
export root source folder
exec unshare --mount bash -euc '
  mount --bind "$folder" "$root/mnt"
  cp "$source" "$root/mnt/wevtapi.c"
  chroot "$root" x86_64-w64-mingw32-gcc -O2 -Wall -Wextra -Werror -shared -static-libgcc -o /mnt/wevtapi.dll /mnt/wevtapi.c
  rm "$root/mnt/wevtapi.c"'
