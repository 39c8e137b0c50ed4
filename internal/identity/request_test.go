package identity

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func newKey(t testing.TB, kind string) crypto.Signer {
	t.Helper()
	key, err := NewKey(kind)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func newCA(t testing.TB) *Authority {
	t.Helper()
	a, err := NewAuthority("example.org", ECDSA, 24*time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func request(t testing.TB, key crypto.Signer) []byte {
	t.Helper()
	der, err := NewRequest(key)
	if err != nil {
		t.Fatal(err)
	}
	return der
}

func TestARequestHasAKeyThatIsTakenAndIsSignedWithIt(t *testing.T) {
	short, err := rsa.GenerateKey(rand.Reader, 1024)
	if err != nil {
		t.Skip(err) // not in FIPS mode
	}
	small, _ := ecdsa.GenerateKey(elliptic.P224(), rand.Reader)
	p384, _ := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	good := request(t, newKey(t, ECDSA))
	forged := append([]byte{}, good...)
	forged[len(forged)-1] ^= 1
	for name, c := range map[string]struct {
		der  []byte
		want string
	}{
		"P-256":          {good, ""},
		"P-384":          {request(t, p384), ""},
		"Ed25519":        {request(t, newKey(t, Ed25519)), ""},
		"P-224":          {request(t, small), "is not one of"},
		"RSA 1024":       {request(t, short), "is not one of"},
		"another's key":  {forged, "not signed with its key"},
		"more after it":  {append(append([]byte{}, good...), 0), "cannot be read"},
		"half of it":     {good[:len(good)/2], "cannot be read"},
		"nothing":        {nil, "cannot be read"},
		"very much":      {make([]byte, MaxRequest+1), "longer than"},
		"a certificate":  {newCA(t).Cert.Raw, "cannot be read"},
		"only an object": {[]byte{0x30, 0}, "cannot be read"},
	} {
		_, err := ParseRequest(c.der)
		if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
	}
}

func FuzzParseRequest(f *testing.F) {
	f.Add(request(f, newKey(f, ECDSA)))
	f.Add(request(f, newKey(f, Ed25519)))
	f.Add([]byte{0x30, 0x80})
	f.Fuzz(func(t *testing.T, der []byte) {
		r, err := ParseRequest(der)
		if (r == nil) == (err == nil) {
			t.Fatal(r, err)
		}
		if err == nil && (r.CheckSignature() != nil || strong(r.PublicKey) != nil) {
			t.Error("taken, but it should not be")
		}
	})
}

func FuzzCheckIssued(f *testing.F) {
	a, key := newCA(f), newKey(f, ECDSA)
	cert, err := a.SignAgent(key.Public(), NewNode(), time.Hour)
	if err != nil {
		f.Fatal(err)
	}
	text, err := EncodePair(key, []*x509.Certificate{cert})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(EncodeCertificates(cert, a.Cert))
	f.Add(text)
	f.Add([]byte("-----BEGIN CERTIFICATE-----\nMAA=\n-----END CERTIFICATE-----\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		certs, node, err := CheckIssued(text, key, time.Now())
		if err != nil {
			if !errors.Is(err, ErrIssued) || certs != nil || node != "" {
				t.Error(certs, node, err)
			}
			return
		}
		if !certs[0].Equal(cert) {
			t.Error("another certificate for this key is taken")
		}
	})
}

// serverSet is a server with a certificate of a for name, in files.
func serverSet(t *testing.T, a *Authority, name string) *Set {
	t.Helper()
	dir := t.TempDir()
	key := newKey(t, ECDSA)
	cert, err := a.SignServer(key.Public(), []string{name}, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := a.SavePair(dir, ServerFile, cert, key); err != nil {
		t.Fatal(err)
	}
	at := func(name string) string { return filepath.Join(dir, name) }
	set, err := LoadServer(Server{CertFile: at(ServerFile), KeyFile: at(ServerKey), ClientCAFile: at(CAFile)})
	if err != nil {
		t.Fatal(err)
	}
	return set
}

func TestFirstContactIsOnlyWithTheServerOfTheToken(t *testing.T) {
	ours, others := newCA(t), newCA(t)
	token := NewToken(ours.Cert)
	honest := serverSet(t, ours, "rea.test")
	foreign := serverSet(t, others, "rea.test")
	bare := honest.TLS.Clone() // does not send the authority's certificate
	bare.ClientAuth = tls.NoClientCert

	agentKey := newKey(t, ECDSA)
	agentCert, err := ours.SignAgent(agentKey.Public(), NewNode(), time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	posing := honest.Welcome(ours.Cert) // an agent that poses as the server
	posing.Certificates = []tls.Certificate{{Certificate: [][]byte{agentCert.Raw, ours.Cert.Raw}, PrivateKey: agentKey}}

	for name, c := range map[string]struct {
		server *tls.Config
		called string
		want   string // part of an error; "" for none
	}{
		"the server":                      {honest.Welcome(ours.Cert), "rea.test", ""},
		"another name":                    {honest.Welcome(ours.Cert), "other.test", "not other.test"},
		"another authority":               {foreign.Welcome(others.Cert), "rea.test", ErrStranger.Error()},
		"another, with ours sent along":   {foreign.Welcome(ours.Cert), "rea.test", ErrStranger.Error()},
		"without the authority":           {bare, "rea.test", ErrStranger.Error()},
		"an agent of ours, as the server": {posing, "rea.test", "x509"},
	} {
		t.Run(name, func(t *testing.T) {
			first := NewFirstContact(token, c.called)
			err, _ := handshake(t, first.TLS, c.server)
			switch {
			case c.want == "" && (err != nil || !first.CA.Equal(ours.Cert)):
				t.Errorf("%v, authority %v", err, first.CA)
			case c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want) || first.CA != nil):
				t.Errorf("%v, want %q", err, c.want)
			}
		})
	}
}

func TestAnIssuedCertificateIsLookedAt(t *testing.T) {
	a, other := newCA(t), newCA(t)
	key, node := newKey(t, ECDSA), NewNode()
	sign := func(by *Authority, k crypto.Signer) []byte {
		c, err := by.SignAgent(k.Public(), node, time.Hour)
		if err != nil {
			t.Fatal(err)
		}
		return EncodeCertificates(c)
	}
	server, err := a.SignServer(key.Public(), []string{"rea.test"}, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	good := sign(a, key)
	text, err := EncodeKey(key)
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	for name, c := range map[string]struct {
		text []byte
		now  time.Time
		want string
	}{
		"right":                       {good, now, ""},
		"for another key":             {sign(a, newKey(t, ECDSA)), now, "for another key"},
		"from another authority":      {sign(other, key), now, "unknown authority"},
		"a server's":                  {EncodeCertificates(server), now, "names no agent"},
		"the authority itself":        {EncodeCertificates(a.Cert), now, "names no agent"},
		"not valid yet by this clock": {good, now.Add(-2 * time.Hour), "set it right"},
		"over already by this clock":  {good, now.Add(2 * time.Hour), "set it right"},
		"no PEM":                      {[]byte("hello"), now, "holds none"},
		"a key":                       {text, now, "more or other"},
		"far too many":                {[]byte(strings.Repeat(string(good), maxIssued+1)), now, "more or other"},
	} {
		certs, got, err := CheckIssued(c.text, key, c.now)
		if err == nil {
			err = Vouches(a.Cert, certs, c.now)
		}
		switch {
		case c.want == "" && (err != nil || got != node):
			t.Errorf("%s: %v, %q", name, err, got)
		case c.want != "" && (!errors.Is(err, ErrIssued) || !strings.Contains(err.Error(), c.want)):
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
	}
}

func TestAPairInOneFileIsLoadedAsCertificateAndKey(t *testing.T) {
	a, key, node := newCA(t), newKey(t, Ed25519), NewNode()
	cert, err := a.SignAgent(key.Public(), node, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	text, err := EncodePair(key, []*x509.Certificate{cert})
	if err != nil {
		t.Fatal(err)
	}
	name := filepath.Join(t.TempDir(), "agent.pem")
	if err := os.WriteFile(name, text, 0o600); err != nil {
		t.Fatal(err)
	}
	set, err := LoadClient(Client{CertFile: name, KeyFile: name, Verify: true})
	if err != nil || !set.Leaf.Equal(cert) {
		t.Errorf("%v", err)
	}
}

func TestRenewalIsDueAtTwoThirdsOfTheLife(t *testing.T) {
	from := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	for _, c := range []struct {
		life, backdate, earliest, middle, latest time.Duration
	}{
		{30 * time.Hour, backdate, 18*time.Hour + 30*time.Minute, 20 * time.Hour, 21*time.Hour + 30*time.Minute},
		{30 * time.Second, backdate, 18500 * time.Millisecond, 20 * time.Second, 21500 * time.Millisecond},
		{30 * time.Minute, 0, 18*time.Minute + 30*time.Second, 20 * time.Minute, 21*time.Minute + 30*time.Second},
	} {
		cert := &x509.Certificate{NotBefore: from.Add(-c.backdate), NotAfter: from.Add(c.life)}
		for draw, want := range map[float64]time.Duration{0: c.earliest, 0.5: c.middle, 1: c.latest} {
			if got := RenewAt(cert, draw).Sub(from); (got - want).Abs() > time.Second/1000 {
				t.Errorf("life %v, draw %v: %v, want %v", c.life, draw, got, want)
			}
		}
	}
}
