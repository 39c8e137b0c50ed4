package pki

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/rea-agent/rea/internal/identity"
)

const tokenNode = "0190d1c0-0000-7000-8000-000000000001"

func tokenFolder(t *testing.T) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "pki")
	if _, err := Init(dir, "example.org", identity.ECDSA, time.Hour); err != nil {
		t.Fatal(err)
	}
	return dir
}

func TestATokenIsSpentOnce(t *testing.T) {
	dir := tokenFolder(t)
	made, secret, err := NewToken(dir, "lab 7", time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := identity.ParseNode(made.Node); err != nil || made.Node == "lab 7" {
		t.Error(made.Node, err)
	}
	now := made.Created
	for _, step := range []struct {
		name string
		key  string
		at   time.Duration
		want error
	}{
		{"the first key gets it", "one", time.Minute, nil},
		{"another key does not", "two", 2 * time.Minute, ErrTokenUsed},
		{"the first may ask again", "one", 3 * time.Minute, nil},
		{"but not after its life", "one", time.Hour + time.Second, ErrTokenExpired},
	} {
		got, err := Spend(dir, secret, step.key, now.Add(step.at))
		if !errors.Is(err, step.want) || got.ID != made.ID || got.Node != made.Node {
			t.Errorf("%s: %v, %+v", step.name, err, got)
		}
	}
	list, err := ListTokens(dir)
	if err != nil || len(list) != 1 || list[0].State(now) != "used" || !list[0].Used.Equal(now.Add(time.Minute)) {
		t.Errorf("%+v, %v", list, err)
	}
}

func TestATokenThatIsNotOpenIsRefused(t *testing.T) {
	dir := tokenFolder(t)
	made, expired, _ := NewToken(dir, "a", time.Minute)
	revoked, secret, _ := NewToken(dir, tokenNode, time.Hour)
	if revoked.Node != tokenNode {
		t.Error(revoked.Node)
	}
	if got, err := RevokeToken(dir, revoked.ID); err != nil || got.State(time.Now()) != "revoked" {
		t.Error(got, err)
	}
	ca, err := identity.LoadCA(filepath.Join(dir, identity.CAFile))
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		token identity.Token
		want  error
	}{
		"expired": {expired, ErrTokenExpired}, "revoked": {secret, ErrTokenRevoked}, "unknown": {identity.NewToken(ca), ErrNoToken},
	} {
		if _, err := Spend(dir, c.token, "key", made.Created.Add(2*time.Minute)); !errors.Is(err, c.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := RevokeToken(dir, "0123"); !errors.Is(err, ErrNoToken) {
		t.Error(err)
	}
}

func TestOfManyKeysForOneTokenOneWins(t *testing.T) {
	dir := tokenFolder(t)
	_, secret, err := NewToken(dir, "lab-7", time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	var won atomic.Int32
	var all sync.WaitGroup
	for i := range 16 {
		all.Go(func() {
			switch _, err := Spend(dir, secret, fmt.Sprint("key ", i), time.Now()); {
			case err == nil:
				won.Add(1)
			case !errors.Is(err, ErrTokenUsed):
				t.Error(err)
			}
		})
	}
	all.Wait()
	if won.Load() != 1 {
		t.Errorf("%d keys got it", won.Load())
	}
}

func TestNoSecretIsInTheFolder(t *testing.T) {
	dir := tokenFolder(t)
	_, secret, err := NewToken(dir, "lab-7", time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(filepath.Join(dir, Tokens))
	if err != nil {
		t.Fatal(err)
	}
	text := secret.String()
	for i := 4; i+20 < len(text); i++ {
		if strings.Contains(string(b), text[i:i+20]) {
			t.Fatalf("%s holds a part of the token", b)
		}
	}
	if !strings.Contains(string(b), secret.Hash()) {
		t.Errorf("%s", b)
	}
}

func TestATokenNeedsANameALifeAndAnAuthority(t *testing.T) {
	dir := tokenFolder(t)
	for name, c := range map[string]struct {
		dir, name string
		life      time.Duration
		want      error
	}{
		"no name":         {dir, "", time.Hour, ErrTokenName},
		"a terminal's":    {dir, "a\x1b[31m", time.Hour, ErrTokenName},
		"too long a life": {dir, "a", TokenLife + 1, identity.ErrAsked},
		"no life":         {dir, "a", 0, identity.ErrAsked},
		"no authority":    {t.TempDir(), "a", time.Hour, os.ErrNotExist},
	} {
		if _, _, err := NewToken(c.dir, c.name, c.life); !errors.Is(err, c.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if list, err := ListTokens(dir); err != nil || len(list) != 0 {
		t.Error(list, err)
	}
	if err := os.WriteFile(filepath.Join(dir, Tokens), []byte("{\"id\":\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, _, err := NewToken(dir, "a", time.Hour); err == nil || !strings.Contains(err.Error(), "line 1") {
		t.Errorf("a damaged list is replaced: %v", err)
	}
}
