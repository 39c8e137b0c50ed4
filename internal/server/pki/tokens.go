package pki

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"regexp"
	"slices"
	"time"

	"github.com/rea-agent/rea/internal/durable"
	"github.com/rea-agent/rea/internal/identity"
)

// Tokens is the file of join tokens, a JoinToken a line. Who changes it holds the
// lock and replaces it as a whole, durably: the commands and a server that runs
// are different processes.
const Tokens = "tokens.jsonl"

// TokenLife is the longest that a join token can live.
const TokenLife = time.Hour

// tokenMemory is how long a token that is over stays in the file, to be looked at.
const tokenMemory = 30 * 24 * time.Hour

// A JoinToken is what is kept of an identity.Token: not its secret.
type JoinToken struct {
	ID      string    `json:"id"`
	Hash    string    `json:"hash"`
	Name    string    `json:"name"` // as it was given: the agent's, or what people call the machine
	Node    string    `json:"node"` // what the agent will be
	Created time.Time `json:"created"`
	Expires time.Time `json:"expires"`
	Revoked time.Time `json:"revoked,omitzero"`
	Used    time.Time `json:"used,omitzero"`
	SPKI    string    `json:"spki,omitempty"` // of the key that it was used for
}

// State says in a word what a token is.
func (t *JoinToken) State(now time.Time) string {
	switch {
	case !t.Revoked.IsZero():
		return "revoked"
	case !t.Used.IsZero():
		return "used"
	case now.After(t.Expires):
		return "expired"
	}
	return "open"
}

// Why a token is refused. They are for the server's log: who shows such a token is
// not told which it is.
var (
	ErrNoToken      = errors.New("there is no such token")
	ErrTokenExpired = errors.New("the token has expired")
	ErrTokenUsed    = errors.New("the token was used for another key")
	ErrTokenRevoked = errors.New("the token was revoked")
)

// ErrTokenName says that a token cannot be bound to a name.
var ErrTokenName = errors.New("a name is 1 to 128 letters, digits, spaces and - _ . : @")

var tokenName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9 ._:@-]{0,127}$`)

// NewToken makes a token with which one machine can become an agent, for the
// authority in the folder dir, of which it needs no key. The agent's name is name
// where that is a UUID, else a new one.
func NewToken(dir, name string, life time.Duration) (JoinToken, identity.Token, error) {
	ca, err := identity.LoadCA(filepath.Join(dir, identity.CAFile))
	if err != nil {
		return JoinToken{}, identity.Token{}, err
	}
	if !tokenName.MatchString(name) {
		return JoinToken{}, identity.Token{}, fmt.Errorf("%q cannot be a name: %w", name, ErrTokenName)
	}
	if life <= 0 || life > TokenLife {
		return JoinToken{}, identity.Token{}, fmt.Errorf("%w: a token lives at most %v", identity.ErrAsked, TokenLife)
	}
	secret, now := identity.NewToken(ca), time.Now().UTC()
	t := JoinToken{Hash: secret.Hash(), Name: name, Created: now, Expires: now.Add(life)}
	t.ID = t.Hash[:12]
	if t.Node, err = identity.ParseNode(name); err != nil {
		t.Node = identity.NewNode()
	}
	err = changeTokens(dir, func(list []JoinToken) ([]JoinToken, error) {
		list = slices.DeleteFunc(list, func(old JoinToken) bool { return now.Sub(old.Expires) > tokenMemory })
		return append(list, t), nil
	})
	return t, secret, err
}

// Spend uses a token for a key. It returns nil once the file says durably that the
// token is used, so that of two keys one gets it, and none after a crash. The key
// that got it may come again while the token lives: its answer may have been lost.
func Spend(dir string, secret identity.Token, spki string, now time.Time) (spent JoinToken, err error) {
	hash := secret.Hash()
	err = changeTokens(dir, func(list []JoinToken) ([]JoinToken, error) {
		i := slices.IndexFunc(list, func(t JoinToken) bool { return t.Hash == hash })
		if i < 0 {
			return nil, ErrNoToken
		}
		t := &list[i]
		spent = *t
		switch {
		case !t.Revoked.IsZero():
			return nil, ErrTokenRevoked
		case now.After(t.Expires):
			return nil, ErrTokenExpired
		case t.SPKI == spki:
			return nil, nil // is written already
		case t.SPKI != "":
			return nil, ErrTokenUsed
		}
		t.Used, t.SPKI = now.UTC(), spki
		spent = *t
		return list, nil
	})
	return spent, err
}

// RevokeToken makes the token with that id useless. What was issued for it is not
// touched.
func RevokeToken(dir, id string) (t JoinToken, err error) {
	err = changeTokens(dir, func(list []JoinToken) ([]JoinToken, error) {
		i := slices.IndexFunc(list, func(t JoinToken) bool { return t.ID == id })
		if i < 0 {
			return nil, fmt.Errorf("token %q: %w", id, ErrNoToken)
		}
		if list[i].Revoked.IsZero() {
			list[i].Revoked = time.Now().UTC()
		}
		t = list[i]
		return list, nil
	})
	return t, err
}

// ListTokens returns the tokens of the authority in a folder, the oldest first.
func ListTokens(dir string) ([]JoinToken, error) {
	if _, err := identity.LoadCA(filepath.Join(dir, identity.CAFile)); err != nil {
		return nil, err
	}
	return readTokens(dir)
}

func readTokens(dir string) (list []JoinToken, err error) {
	name := filepath.Join(dir, Tokens)
	b, err := durable.ReadFile(name)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("read the tokens: %w", err)
	}
	n := 0
	for line := range bytes.Lines(b) {
		n++
		var t JoinToken
		if err := json.Unmarshal(line, &t); err != nil {
			return nil, fmt.Errorf("read the tokens %s: line %d: %w", name, n, err)
		}
		list = append(list, t)
	}
	return list, nil
}

// changeTokens replaces the tokens by what change makes of them, unless that is nil.
func changeTokens(dir string, change func([]JoinToken) ([]JoinToken, error)) error {
	f := &Folder{Dir: dir}
	return f.alone(func() error {
		list, err := readTokens(dir)
		if err != nil {
			return err
		}
		if list, err = change(list); err != nil || list == nil {
			return err
		}
		var b bytes.Buffer
		for _, t := range list {
			if err := json.NewEncoder(&b).Encode(t); err != nil {
				return fmt.Errorf("write the tokens: %w", err)
			}
		}
		return durable.WriteFile(f.path(Tokens), b.Bytes(), 0o600)
	})
}
