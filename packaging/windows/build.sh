#!/usr/bin/env bash
# build.sh VERSION: the packages for Windows, into dist/packages.
# build.sh VERSION FILE.msi: only the package of the agent for amd64, to try it.
#
# With SIGN_CERT and SIGN_KEY, programs and packages are signed on the way (sign.sh).
# What is not signed is the same, byte by byte, wherever it is built: all times are
# that of the commit, all numbers are made of names and contents.
set -euo pipefail
cd "$(dirname "$0")/../.."
version=$1
here=packaging/windows
out=dist/packages
only=
if [ $# -gt 1 ]; then
  only=$(readlink -m "$2")
  out=$(mktemp -d)
  trap 'rm -rf "$out"' EXIT
fi
export SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct 2>/dev/null || echo 1700000000)} TZ=UTC LC_ALL=C

missing=
for tool in wixl:wixl msibuild:msitools msiinfo:msitools msiextract:msitools osslsigncode:osslsigncode openssl:openssl unzip:unzip file:file; do
  command -v "${tool%%:*}" >/dev/null || missing="$missing ${tool##*:}"
done
if [ -n "$missing" ]; then
  if [ "$(id -u)" != 0 ]; then
    echo "packages: wants root to install$missing; or do it yourself: apt-get install$missing" >&2
    exit 1
  fi
  apt-get update -q >&2
  # shellcheck disable=SC2086
  DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends $missing >&2
fi

rm -rf "$out"
mkdir -p "$out/tools"
go build -o "$out/tools/" ./$here/resource ./$here/bundle
number=$("$out/tools/resource" -number "$version")

# uuid TEXT…: an identity that is the same for the same text.
uuid() {
  printf '%s\n' "$@" | sha1sum | sed -E 's/^(.{8})(.{4}).(.{3}).(.{3})(.{12}).*/\1-\2-5\3-8\4-\5/' | tr a-f A-F
}

program() { # ARCH NAME ABOUT
  local exe=$out/$1/$2.exe
  make -s windows-program ARCH="$1" NAME="$2" VERSION="$version" OUT="$out/$1"
  "$out/tools/resource" -name "$2" -about "$3" -version "$version" "$exe"
  [ -z "${SIGN_CERT:-}" ] || $here/sign.sh "$3" "$exe"
}

msi() { # ARCH TEMPLATE FILE
  local dir=$out/msi-$1 file=$3
  mkdir -p "$dir"
  cp "$out/$1/rea-agent.exe" configs/agent.example.toml "$dir"
  cp LICENSE "$dir/LICENSE.txt"
  "$out/tools/resource" -icon "$dir/rea.ico"
  find "$dir" -type f -exec touch -d "@$SOURCE_DATE_EPOCH" {} +
  local content
  content=$(cat "$dir"/* $here/rea-agent.wxs $here/rea-agent.sql | sha1sum)
  # wixl looks for files in the folder that it runs in. It knows no arm64: what
  # differs is one word, which comes with the summary.
  (cd "$dir" && wixl -a x64 -D "Version=$version" -D "Number=$number" -D "ProductCode=$(uuid product "$1" "$version" "$content")" \
    -o "$file" "$OLDPWD/$here/rea-agent.wxs")
  local statements
  mapfile -t statements < <(grep -vE '^(--|$)' $here/rea-agent.sql | sed "s/@NUMBER@/$number/g")
  msibuild "$file" -q "${statements[@]}"
  msiinfo export "$file" _SummaryInformation | tr -d '\r' |
    sed -E "s|^7\t.*|7\t$2;1033|; s|^9\t.*|9\t{$(uuid package "$1" "$version" "$content")}|; s|^(1[23])\t.*|\1\t$(date -d "@$SOURCE_DATE_EPOCH" '+%Y/%m/%d %T')|" >"$dir/_SummaryInformation.idt"
  msibuild "$file" -i "$dir/_SummaryInformation.idt"
  rm -r "$dir"
  [ -z "${SIGN_CERT:-}" ] || $here/sign.sh "REA Endpoint Agent" "$file"
}

if [ -n "$only" ]; then
  program amd64 rea-agent "REA Endpoint Agent"
  msi amd64 x64 "$only"
  exit
fi
for arch in amd64 arm64; do
  echo "windows/$arch: programs and package"
  program "$arch" rea-agent "REA Endpoint Agent"
  program "$arch" rea-server "REA Server"
done
msi amd64 x64 "$PWD/$out/rea-agent-${version#v}-windows-amd64.msi"
msi arm64 Arm64 "$PWD/$out/rea-agent-${version#v}-windows-arm64.msi"
"$out/tools/bundle" -version "$version" -number "$number" -epoch "$SOURCE_DATE_EPOCH" -dir "$out"
