#!/usr/bin/env bash
# exec.sh PROGRAM ARGUMENT…: runs a Windows program under Wine. As the -exec of go
# test it runs a test in its folder of the repository.
# exec.sh -: runs the commands of a shell that come from standard input, "wine
# PROGRAM ARGUMENT…" among them: one after the other on the same Windows, which
# stays up between them, and its services with it.
#
# Each program gets namespaces of its own: what it starts ends with it, its mounts
# end with it, and what it writes goes to memory over the folder of setup.sh, which
# stays as it is. Programs that run side by side do not meet, except in the network.
# The repository is there to read.
#
# REA_SHARE names a folder that both see, as Z:\share there. REA_WEVTAPI names a
# double of wevtapi.dll to be used instead of Wine's: see double.sh.
set -euo pipefail
root=${REA_WINE:-${XDG_CACHE_HOME:-$HOME/.cache}/rea-wine}
repository=$(cd "$(dirname "$0")/../.." && pwd)
program=$1
[ "$program" = - ] || program=$(readlink -f "$program")
shift
export root repository program cwd=$PWD
exec unshare --mount --pid --fork --kill-child bash -euc '
  tmp=$root.run # each namespace has its own there
  mkdir -p "$tmp"
  mount -t tmpfs -o mode=755 rea-wine "$tmp"
  mkdir "$tmp"/{upper,work,root}
  mount -t overlay -o "lowerdir=$root,upperdir=$tmp/upper,workdir=$tmp/work" rea-wine "$tmp/root"
  cd "$tmp/root"
  mkdir -p src program
  mount -t proc proc proc
  mount --rbind /dev dev
  mount --rbind /sys sys
  mount --bind -o ro "$repository" src
  [ "$program" = - ] || mount --bind -o ro "$(dirname "$program")" program
  if [ -n "${REA_SHARE:-}" ]; then
    mkdir share
    mount --bind "$REA_SHARE" share
  fi
  if [ -n "${REA_WEVTAPI:-}" ]; then
    cp "$REA_WEVTAPI" prefix/drive_c/windows/system32/wevtapi.dll
  fi
  if [ "$program" = - ]; then
    umask 077 # as in inside.sh: it is the server that makes the files
    exec chroot . sh -c "WINEPREFIX=/prefix /usr/lib/wine/wineserver64 --persistent && exec sh"
  fi
  [[ $cwd/ == "$repository"/* ]] && in=/src${cwd#"$repository"} || in=/tmp
  exec chroot . sh -c '\''cd "$0" && exec wine "$@"'\'' "$in" "/program/$(basename "$program")" "$@"
' - "$@"
