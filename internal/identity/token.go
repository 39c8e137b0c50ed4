package identity

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base32"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"unicode"
)

// A Token lets one machine become an agent, once. It is a secret, and says whom
// the machine may show it to: a server whose certificate comes from the authority
// with a public key.
//
// As text it is tokenPrefix and the lower-case base32 (RFC 4648, unpadded) of
//
//	16 bytes  the secret, random
//	32 bytes  the SHA-256 of the authority's SubjectPublicKeyInfo
//	 4 bytes  the beginning of the SHA-256 of the prefix and of all of that
//
// which a double click selects as a whole, which survives capital letters and line
// breaks, and in which a slip is told from a token that is not known.
type Token struct {
	Secret [16]byte
	CA     [sha256.Size]byte
}

const (
	tokenPrefix = "rea1"
	tokenBytes  = 16 + sha256.Size + 4
)

var tokenText = base32.NewEncoding("abcdefghijklmnopqrstuvwxyz234567").WithPadding(base32.NoPadding)

// ErrToken says that a text is no token.
var ErrToken = errors.New("this is no join token")

// NewToken makes a token for the authority of that certificate.
func NewToken(ca *x509.Certificate) Token {
	t := Token{CA: sha256.Sum256(ca.RawSubjectPublicKeyInfo)}
	rand.Read(t.Secret[:]) // never fails: https://pkg.go.dev/crypto/rand#Read
	return t
}

// Hash returns what a server keeps of the token, in hexadecimal. A plain SHA-256
// is enough: what makes the hashes of passwords slow is that passwords can be
// guessed, and 128 random bits cannot, however fast one guess is.
func (t Token) Hash() string {
	sum := sha256.Sum256(t.Secret[:])
	return hex.EncodeToString(sum[:])
}

func (t Token) String() string {
	b := append(append([]byte{}, t.Secret[:]...), t.CA[:]...)
	return tokenPrefix + tokenText.EncodeToString(append(b, tokenSum(b)...))
}

func tokenSum(b []byte) []byte {
	sum := sha256.Sum256(append([]byte(tokenPrefix), b...))
	return sum[:4]
}

// ParseToken reads a token as a person may have copied it. Its errors are
// ErrToken, and never repeat the text.
func ParseToken(s string) (t Token, err error) {
	if len(s) > 1000 {
		return t, fmt.Errorf("%w: it is far too long", ErrToken)
	}
	s = strings.ToLower(strings.Map(func(r rune) rune {
		if unicode.IsSpace(r) {
			return -1
		}
		return r
	}, s))
	rest, ok := strings.CutPrefix(s, tokenPrefix)
	switch want := tokenText.EncodedLen(tokenBytes); {
	case !ok && strings.HasPrefix(s, "rea"):
		return t, fmt.Errorf("%w of this version, which begins with %s: use the same version as the server", ErrToken, tokenPrefix)
	case !ok:
		return t, fmt.Errorf("%w, which begins with %s: copy it as a whole", ErrToken, tokenPrefix)
	case len(rest) != want:
		return t, fmt.Errorf("%w: it has %d characters, not %d: copy it as a whole", ErrToken, len(s), want+len(tokenPrefix))
	}
	b, err := tokenText.DecodeString(rest)
	if err != nil || tokenText.EncodeToString(b) != rest || !bytes.Equal(tokenSum(b[:tokenBytes-4]), b[tokenBytes-4:]) {
		return t, fmt.Errorf("%w: a character is wrong: copy it again", ErrToken)
	}
	copy(t.Secret[:], b)
	copy(t.CA[:], b[len(t.Secret):])
	return t, nil
}
