#!/usr/bin/env bash
# check.sh VERSION: proves that the packages in dist/packages are what they should
# be: their tables, their files, their versions, and that signing works. Prints a
# line for each, and ends with 1 at the first that does not hold.
set -euo pipefail
cd "$(dirname "$0")/../.."
version=$1
here=packaging/windows
out=dist/packages
number=$("$out/tools/resource" -number "$version")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

ok() { printf 'ok    %s\n' "$1"; }
fail() {
  printf 'FAIL  %s\n' "$1" >&2
  exit 1
}
# row FILE TABLE KEY: that row of the package, its fields between |.
row() { msiinfo export "$1" "$2" | tr -d '\r' | tr '\t' '|' | grep -F "$3|" | grep -E "^$(printf %s "$3" | sed 's/[][{}().*^$]/\\&/g')\|"; }
# has FILE TABLE KEY ROW: the package says exactly that.
has() {
  local got
  got=$(row "$1" "$2" "$3") || fail "$(basename "$1"): table $2 has no $3"
  [ "$got" = "$4" ] || fail "$(basename "$1"): table $2 says $got, want $4"
}
sequence() { row "$1" InstallExecuteSequence "$2" | cut -d'|' -f3; }

for arch in amd64 arm64; do
  msi=$out/rea-agent-${version#v}-windows-$arch.msi
  declare -A template=([amd64]=x64 [arm64]=Arm64) machine=([amd64]=x86-64 [arm64]=Aarch64)

  for name in rea-agent rea-server; do
    exe=$out/$arch/$name.exe
    file -b "$exe" | grep -q "^PE32+ executable.*(console) ${machine[$arch]}" || fail "$exe is $(file -b "$exe")"
    "$out/tools/resource" -show "$exe" >"$work/shown"
    grep -qx "ProductVersion=$version" "$work/shown" || fail "$exe does not show $version"
    grep -qx "Number=$number" "$work/shown" || fail "$exe does not show $number"
    grep -aqF "$version" "$exe" || fail "$exe was not built as $version"
  done
  ok "$arch: programs for $arch, version $version, number $number"

  msiinfo suminfo "$msi" | grep -qx "Template: ${template[$arch]};1033" || fail "$msi is not for ${template[$arch]}"
  has "$msi" Property ProductVersion "ProductVersion|$number"
  has "$msi" Property UpgradeCode 'UpgradeCode|{E641B9AC-16E3-47D7-B3FA-F40D74C33B3A}'
  has "$msi" Property ALLUSERS 'ALLUSERS|1'
  has "$msi" Property MsiHiddenProperties 'MsiHiddenProperties|REA_TOKEN'
  row "$msi" Property SecureCustomProperties | grep -q 'REA_SERVER;REA_TOKEN;REA_ENDPOINT;REA_PURGE' || fail "properties do not reach the part that installs"
  ok "$arch: for all users, replaces older ones, keeps the token out of logs"

  # 3090 runs as SYSTEM in the transaction, +64 and its failure is no matter, +256
  # at rollback, +8192 and its line is not logged.
  has "$msi" CustomAction MakeService 'MakeService|3090|AgentExe|service install|'
  has "$msi" CustomAction UndoService 'UndoService|3410|AgentExe|service uninstall|'
  has "$msi" CustomAction RestoreService 'RestoreService|3410|AgentExe|service install|'
  has "$msi" CustomAction RemoveService 'RemoveService|3154|AgentExe|service uninstall|'
  has "$msi" CustomAction PurgeService 'PurgeService|3154|AgentExe|service uninstall --purge|'
  has "$msi" CustomAction Enroll 'Enroll|11282|AgentExe|enroll --server "[REA_SERVER]" --token "[REA_TOKEN]"|'
  has "$msi" InstallExecuteSequence DeleteServices 'DeleteServices|NOT UPGRADINGPRODUCTCODE|2000'
  has "$msi" ServiceControl Service 'Service|REA|163||1|Program'
  before=0
  for action in AppSearch LaunchConditions CostFinalize InstallInitialize RemoveExistingProducts StopServices RestoreService RemoveService PurgeService \
    DeleteServices RemoveFiles InstallFiles UndoService MakeService Enroll WriteIniValues StartServices InstallFinalize; do
    at=$(sequence "$msi" "$action")
    [ "$at" -gt "$before" ] || fail "$action is at $at, not behind $before"
    before=$at
  done
  ok "$arch: custom actions, and their order"

  mkdir "$work/$arch"
  msiextract -C "$work/$arch" "$msi" >/dev/null
  found=$(find "$work/$arch" -name rea-agent.exe)
  cmp "$out/$arch/rea-agent.exe" "$found" || fail "the program in $msi is another"
  cmp configs/agent.example.toml "$(dirname "$found")/agent.example.toml"
  cmp LICENSE "$(dirname "$found")/LICENSE.txt"
  has "$msi" File AgentExe "AgentExe|Program|REAAGENT.EXE|rea-agent.exe|$(stat -c %s "$found")|$number|1033|512|1"
  [ "$(find "$work/$arch" -type f | wc -l)" = 3 ] || fail "$msi has other files: $(find "$work/$arch" -type f)"
  ok "$arch: the files in the package are those that were built"

  zip=$out/rea-${version#v}-windows-$arch.zip
  unzip -q "$zip" -d "$work/zip-$arch"
  for name in rea-agent.exe rea-server.exe; do
    cmp "$out/$arch/$name" "$work/zip-$arch/rea-${version#v}-windows-$arch/$name" || fail "$name in $zip is another"
  done
  [ "$(find "$work/zip-$arch" -type f | wc -l)" = 6 ] || fail "$zip has other files"
  ok "$arch: the files in the .zip are those that were built"
done
(cd "$out" && sha256sum -c --quiet SHA256SUMS)
[ "$(wc -l <"$out/SHA256SUMS")" = 4 ] || fail "SHA256SUMS has not four lines"
ok "SHA256SUMS"

# Signatures: those that are there, or those of a certificate made for this check.
signed() { # FILE CA NAME
  osslsigncode verify -CAfile "$2" -in "$1" >"$work/verify" 2>&1 || { cat "$work/verify" >&2; fail "the signature of $(basename "$1")"; }
}
if [ -n "${SIGN_CERT:-}" ]; then
  for file in "$out"/*/*.exe "$out"/*.msi; do signed "$file" "${SIGN_CA:-/etc/ssl/certs/ca-certificates.crt}"; done
  ok "signed, all of them"
else
  $here/sign.sh demo "$work/demo"
  export SIGN_CERT=$work/demo/demo.crt SIGN_KEY=$work/demo/demo.key
  for file in "$out/amd64/rea-agent.exe" "$out/rea-agent-${version#v}-windows-amd64.msi"; do
    copy=$work/$(basename "$file")
    cp "$file" "$copy"
    $here/sign.sh "REA Endpoint Agent" "$copy" 2>/dev/null
    signed "$copy" "$SIGN_CERT"
    ! osslsigncode verify -in "$copy" >/dev/null 2>&1 || fail "a certificate that nobody knows is trusted"
    # One byte of the first file or section, which the signature covers.
    printf '\xff' | dd of="$copy" bs=1 seek=70000 conv=notrunc status=none
    ! osslsigncode verify -CAfile "$SIGN_CERT" -in "$copy" >/dev/null 2>&1 || fail "$(basename "$copy") was changed, and its signature holds"
  done
  ok "signing, tried on copies with a certificate of demonstration; what is published is not signed"
fi
ls -l "$out"/*.msi "$out"/*.zip
