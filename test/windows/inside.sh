#!/bin/sh
# wine PROGRAM ARGUMENT…, as setup.sh puts it into the folder that it makes: runs a Windows
# program without windows and without a desktop's menus. --wait waits until Wine's
# server has written its registry and ended.
export HOME=/root WINEPREFIX=/prefix WINEDEBUG="${WINEDEBUG--all}"
export WINEDLLOVERRIDES="mscoree,mshtml=;winemenubuilder.exe=${REA_WEVTAPI:+;wevtapi=n}"
unset REA_WINE REA_SHARE REA_WEVTAPI # the agent takes what begins with REA_ for its own
umask 077 # what Windows has in a profile: Wine makes the rights of a file of its mode
unset DISPLAY XDG_RUNTIME_DIR XDG_CACHE_HOME XDG_CONFIG_HOME
[ "$1" != --wait ] || exec /usr/lib/wine/wineserver64 --wait
exec /usr/lib/wine/wine64 "$@"
