package identity

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func generate(t testing.TB, names ...string) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "certs")
	if _, err := Generate(dir, names); err != nil {
		t.Fatal(err)
	}
	return dir
}

func load(t testing.TB, dir, name string) *x509.Certificate {
	t.Helper()
	certs, err := readCertificates("certificate", filepath.Join(dir, name))
	if err != nil {
		t.Fatal(err)
	}
	return certs[0]
}

func TestGenerateMakesCertificatesForTheirUseOnly(t *testing.T) {
	dir := generate(t, "rea.example.org", "192.0.2.7", "::1", "localhost")
	ca, server, agent := load(t, dir, CAFile), load(t, dir, ServerFile), load(t, dir, AgentFile)

	if !ca.IsCA || !ca.MaxPathLenZero || ca.KeyUsage != x509.KeyUsageCertSign|x509.KeyUsageCRLSign || len(ca.ExtKeyUsage) != 0 {
		t.Errorf("the authority may do %b %v, path length %d", ca.KeyUsage, ca.ExtKeyUsage, ca.MaxPathLen)
	}
	for _, c := range []struct {
		cert *x509.Certificate
		use  x509.ExtKeyUsage
	}{{server, x509.ExtKeyUsageServerAuth}, {agent, x509.ExtKeyUsageClientAuth}} {
		if c.cert.IsCA || c.cert.KeyUsage != x509.KeyUsageDigitalSignature || !slices.Equal(c.cert.ExtKeyUsage, []x509.ExtKeyUsage{c.use}) {
			t.Errorf("%s may do %b %v", c.cert.Subject, c.cert.KeyUsage, c.cert.ExtKeyUsage)
		}
		roots := x509.NewCertPool()
		roots.AddCert(ca)
		if _, err := c.cert.Verify(x509.VerifyOptions{Roots: roots, KeyUsages: []x509.ExtKeyUsage{c.use}}); err != nil {
			t.Error(err)
		}
	}
	for _, c := range []*x509.Certificate{ca, server, agent} {
		key, ok := c.PublicKey.(*ecdsa.PublicKey)
		if !ok || key.Curve != elliptic.P256() {
			t.Errorf("%s has a key %T", c.Subject, c.PublicKey)
		}
		if c.NotAfter.Sub(c.NotBefore) > 825*24*time.Hour || time.Since(c.NotBefore) > 61*time.Minute || c.SerialNumber.BitLen() < 100 {
			t.Errorf("%s: from %s to %s, serial %x", c.Subject, c.NotBefore, c.NotAfter, c.SerialNumber)
		}
	}
	if d := cmp.Diff([]string{"rea.example.org", "localhost"}, server.DNSNames); d != "" {
		t.Error(d)
	}
	if d := cmp.Diff([]string{"192.0.2.7", "::1", "127.0.0.1"}, ipTexts(server.IPAddresses)); d != "" {
		t.Error(d)
	}
	if node, err := Node(agent); err != nil || node[14] != '4' {
		t.Errorf("the agent is %q, %v", node, err)
	}
	if _, err := Node(server); err == nil {
		t.Error("the server's certificate names an agent")
	}
}

func TestGenerateKeepsKeysToTheOwner(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("modes are of unix")
	}
	dir := generate(t)
	modes := map[string]fs.FileMode{"": 0o700, CAKey: 0o600, ServerKey: 0o600, AgentKey: 0o600}
	for name, want := range modes {
		info, err := os.Stat(filepath.Join(dir, name))
		if err != nil || info.Mode().Perm() != want {
			t.Errorf("%s: %v, %v", name, info.Mode(), err)
		}
	}
}

func TestGenerateOverwritesNothing(t *testing.T) {
	for _, name := range []string{CAFile, AgentKey} {
		dir := t.TempDir()
		mine := filepath.Join(dir, name)
		if err := os.WriteFile(mine, []byte("mine"), 0o600); err != nil {
			t.Fatal(err)
		}
		_, err := Generate(dir, nil)
		if !errors.Is(err, fs.ErrExist) || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: %v", name, err)
		}
		b, _ := os.ReadFile(mine)
		if entries, _ := os.ReadDir(dir); len(entries) != 1 || string(b) != "mine" {
			t.Errorf("%s: folder has %v, file %q", name, entries, b)
		}
	}
}

func TestGenerateLeavesNothingBehindWhenAWriteFails(t *testing.T) {
	dir := t.TempDir()
	err := writeAll(dir, []file{{"a", []byte("a"), 0o600}, {"b", []byte("b"), 0o600}, {"gone/c", []byte("c"), 0o600}})
	if err == nil {
		t.Fatal("a file in a folder that is not there was written")
	}
	if entries, _ := os.ReadDir(dir); len(entries) != 0 {
		t.Errorf("left behind: %v", entries)
	}
}

func TestGenerateRefusesWhatIsNoName(t *testing.T) {
	for _, name := range []string{"", "https://x", "a b", "x:8443", "a..b", "-a", "*", "a.*.b", "é.example", strings.Repeat("a", 64), "a\nb"} {
		dir := filepath.Join(t.TempDir(), "certs")
		if _, err := Generate(dir, []string{name}); err == nil {
			t.Errorf("made a certificate for %q", name)
		}
		if _, err := os.Lstat(dir); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%q: wrote something: %v", name, err)
		}
	}
}

func TestGeneratedKeysAreTheirCertificates(t *testing.T) {
	dir := generate(t)
	for cert, key := range map[string]string{CAFile: CAKey, ServerFile: ServerKey, AgentFile: AgentKey} {
		b, err := os.ReadFile(filepath.Join(dir, key))
		if err != nil {
			t.Fatal(err)
		}
		block, _ := pem.Decode(b)
		k, err := x509.ParsePKCS8PrivateKey(block.Bytes)
		if err != nil {
			t.Fatal(err)
		}
		if !k.(*ecdsa.PrivateKey).PublicKey.Equal(load(t, dir, cert).PublicKey) {
			t.Errorf("%s is not the key of %s", key, cert)
		}
	}
}
