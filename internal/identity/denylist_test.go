package identity

import (
	"bytes"
	"crypto/x509"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func denylist(t testing.TB, text string) (*Denylist, error) {
	t.Helper()
	name := filepath.Join(t.TempDir(), "revoked.jsonl")
	if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return LoadDenylist(name)
}

func agentCertificate(t testing.TB) *x509.Certificate {
	t.Helper()
	a := newAuthority(t, ECDSA)
	key, err := NewKey(ECDSA)
	if err != nil {
		t.Fatal(err)
	}
	c, err := a.SignAgent(key.Public(), uuid, a.Cert.NotAfter.Sub(a.Cert.NotBefore))
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestADenialRefusesByEachOfThree(t *testing.T) {
	c, other := agentCertificate(t), agentCertificate(t)
	upper := strings.ToUpper(Serial(c))
	for name, line := range map[string]string{
		"a serial":                  `{"serial":"` + Serial(c) + `"}`,
		"as openssl writes it":      `{"serial":"00:` + upper[:2] + ":" + upper[2:] + `"}`,
		"a key":                     `{"spki":"` + SPKI(c) + `","reason":"stolen"}`,
		"a key like a pin":          `{"spki":"sha256/` + SPKI(c) + `"}`,
		"an agent, among others":    "# mine\n\n" + `{"serial":"1"}` + "\n" + `{"time":"2026-01-02T03:04:05Z","node":"` + uuid + `"}` + "\n",
		"the last line without \\n": `{"serial":"1"}` + "\n" + `{"serial":"` + Serial(c) + `"}`,
	} {
		d, err := denylist(t, line)
		if err != nil || d.Denies([]*x509.Certificate{c}) == nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if !strings.Contains(name, "agent") && d.Denies([]*x509.Certificate{other}) != nil {
			t.Errorf("%s refuses another one", name)
		}
		if d.Denies([]*x509.Certificate{other, c}) == nil {
			t.Errorf("%s: not behind another one", name)
		}
	}
	if d, err := denylist(t, ""); err != nil || d.Denies([]*x509.Certificate{c}) != nil {
		t.Errorf("an empty list: %v", err)
	}
}

func TestADenylistThatIsNotUnderstoodIsRefused(t *testing.T) {
	for name, line := range map[string]string{
		"another key":      `{"seriall":"1"}`,
		"nothing denied":   `{"reason":"x"}`,
		"no JSON":          "12ab",
		"two in a line":    `{"serial":"1"} {"serial":"2"}`,
		"no serial":        `{"serial":"xyz"}`,
		"no digest":        `{"spki":"abc"}`,
		"no agent":         `{"node":"me"}`,
		"half of the line": `{"serial":"1`,
	} {
		var fe *FileError
		if _, err := denylist(t, `{"serial":"2"}`+"\n"+line+"\n"); !errors.As(err, &fe) || !strings.Contains(err.Error(), "mistake in line 2") {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := LoadDenylist("/nowhere"); !errors.Is(err, os.ErrNotExist) {
		t.Error(err)
	}
}

func FuzzDenial(f *testing.F) {
	f.Add([]byte(`{"serial":"0a:bc","reason":"x"}`))
	f.Add([]byte(`{"node":"` + uuid + `","spki":"` + strings.Repeat("A", 43) + `="}`))
	f.Fuzz(func(t *testing.T, line []byte) {
		d, err := parseDenial(line)
		if err != nil {
			return
		}
		again, err := json.Marshal(d)
		if err != nil {
			return // a time that JSON cannot write
		}
		back, err := parseDenial(bytes.TrimSpace(again))
		if err != nil || back.Serial != d.Serial || back.SPKI != d.SPKI || back.Node != d.Node {
			t.Errorf("%s became %s, %v", line, again, err)
		}
	})
}
