package server

import (
	"path/filepath"
	"time"

	"github.com/rea-agent/rea/internal/identity"
	"github.com/rea-agent/rea/internal/server/pki"
)

// An Authority is a certificate authority in a folder, a Made what it issued as
// files, an Issued the same as its register has it, a Denial who is not let in, and
// a Revocation what that leaves.
type (
	Authority = pki.Folder
	Made      = pki.Made
	Issued    = pki.Issued
	Denial    = identity.Denial
	FileError = identity.FileError

	Revocation = pki.Revocation
)

// The errors of an Authority that are about what it is asked.
var (
	ErrNode    = identity.ErrNode
	ErrAsked   = identity.ErrAsked
	ErrUnknown = pki.ErrUnknown
)

// NewNode returns a random name for an agent.
func NewNode() string { return identity.NewNode() }

// InitAuthority makes an authority in the folder dir.
func InitAuthority(dir, org, kind string, life time.Duration) (*Authority, error) {
	return pki.Init(dir, org, kind, life)
}

// OpenAuthority opens that in the folder dir, to sign.
func OpenAuthority(dir string) (*Authority, error) { return pki.Open(dir) }

// ListIssued returns what the authority in the folder dir issued, and of whom its
// denylist, or that of a file, says that they are not let in.
func ListIssued(dir, file string) ([]Issued, *identity.Denylist, error) {
	list, err := pki.List(dir)
	if err != nil {
		return nil, nil, err
	}
	if file == "" {
		file = filepath.Join(dir, pki.Revoked)
	}
	denied, err := identity.LoadDenylist(file)
	return list, denied, err
}

// Revoke adds a certificate or an agent to a denylist.
func Revoke(dir, which, reason, file string, foreign bool) (Revocation, error) {
	return pki.Revoke(dir, which, reason, file, foreign)
}

// KeyKinds are the kinds of keys that an authority makes.
func KeyKinds() []string { return []string{identity.ECDSA, identity.Ed25519} }
