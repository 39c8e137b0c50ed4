#!/usr/bin/env bash
# Makes the folder in which Windows programs run here: Debian trixie with Wine 10
# and mingw-w64, from the mirror that apt uses already and from nowhere else. It is
# kept, and used again until the recipe changes. Prints the folder.
#
# Wine 8, which Debian 12 has, lacks what Go programs need; hence a system of its own.
set -euo pipefail
root=${REA_WINE:-${XDG_CACHE_HOME:-$HOME/.cache}/rea-wine}
packages="wine64 gcc-mingw-w64-x86-64-win32"

if [ "$(id -u)" != 0 ]; then
  echo "test-windows: wants root, to make and to enter $root; run it as root" >&2
  exit 1
fi
recipe=$(cat "$0" "$(dirname "$0")/inside.sh" | sha256sum | cut -c1-16)
if [ "$(cat "$root/ready" 2>/dev/null)" = "$recipe" ]; then
  echo "$root"
  exit
fi
began=$SECONDS
say() { printf 'test-windows: %s\n' "$1" >&2; }
mirror=$(find /etc/apt -maxdepth 2 -path "/etc/apt/sources.list*" -type f -exec cat {} + |
  sed -nE 's/^(URIs:|deb( \[[^]]*\])?) *(https?:[^ ]*\/debian\/?)( .*)?$/\3/p' | sed -n 1p)
if [ -z "$mirror" ]; then
  say "no Debian mirror among the sources of apt"
  exit 1
fi
if ! command -v debootstrap >/dev/null; then
  say "installing debootstrap"
  apt-get update -qq >&2
  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends debootstrap >&2
fi

# All is done in a folder beside it, in a mount namespace of its own: a setup that
# is cut short leaves neither mounts nor half a system.
new=$root.new
rm -rf "$root" "$new"
mkdir -p "$new"
say "Debian trixie from $mirror"
debootstrap --variant=minbase trixie "$new" "$mirror" >"$new.log" 2>&1 || { tail "$new.log" >&2; exit 1; }
cp "$(dirname "$0")/inside.sh" "$new/usr/local/bin/wine"
say "$packages"
unshare --mount --pid --fork --kill-child bash -euc '
  mount -t proc proc "$1/proc"
  mount --rbind /dev "$1/dev"
  export DEBIAN_FRONTEND=noninteractive LC_ALL=C
  chroot "$1" apt-get update -qq
  chroot "$1" apt-get install -y -qq --no-install-recommends $2
  chroot "$1" apt-get clean
  chroot "$1" wine wineboot --init
  chroot "$1" wine --wait
' - "$new" "$packages" >>"$new.log" 2>&1 || { tail "$new.log" >&2; exit 1; }
test -f "$new/prefix/system.reg"
rm -rf "$new/usr/share/doc" "$new/usr/share/locale" "$new/var/lib/apt/lists"
echo "$recipe" >"$new/ready"
mv "$new" "$root"
say "ready in $((SECONDS - began)) s: Wine $(chroot "$root" dpkg-query -Wf '${Version}' wine64)"
echo "$root"
