#!/usr/bin/env bash
# sign.sh NAME FILE…: signs programs and packages where they lie.
#
#   SIGN_CERT       the certificate, and those between it and the root, as PEM
#   SIGN_KEY        its key, as PEM, or pkcs11:… with SIGN_PKCS11
#   SIGN_PKCS11     the module of the token that has the key: what a certificate for
#                   code signing comes on, since 2023
#   SIGN_TIMESTAMP  where time stamps come from (RFC 3161). Without one a signature
#                   is worth nothing when the certificate has expired.
#
# sign.sh demo FOLDER makes a certificate that nobody trusts, to show and to check
# how signing goes.
set -euo pipefail

if [ "$1" = demo ]; then
  mkdir -p "$2"
  openssl req -x509 -newkey rsa:3072 -noenc -keyout "$2/demo.key" -out "$2/demo.crt" -days 2 \
    -subj "/O=REA demonstration, not to be trusted/CN=REA demonstration of code signing" \
    -addext keyUsage=critical,digitalSignature -addext extendedKeyUsage=codeSigning -addext basicConstraints=critical,CA:FALSE 2>/dev/null
  exit
fi

name=$1
shift
key=(-key "$SIGN_KEY")
[ -z "${SIGN_PKCS11:-}" ] || key=(-pkcs11module "$SIGN_PKCS11" "${key[@]}")
stamp=()
if [ -n "${SIGN_TIMESTAMP:-}" ]; then
  stamp=(-ts "$SIGN_TIMESTAMP")
else
  echo "sign: no SIGN_TIMESTAMP: the signature ends with the certificate" >&2
fi
for file in "$@"; do
  msi=()
  [[ $file != *.msi ]] || msi=(-add-msi-dse)
  rm -f "$file.signed"
  osslsigncode sign "${key[@]}" -certs "$SIGN_CERT" -h sha256 -n "$name" -i https://github.com/rea-agent/rea "${stamp[@]}" "${msi[@]}" \
    -in "$file" -out "$file.signed" >/dev/null
  mv "$file.signed" "$file"
done
