package server

import (
	"bytes"
	"crypto/tls"
	"encoding/json"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/rea-agent/rea/internal/identity"
	"github.com/rea-agent/rea/internal/server/pki"
	"github.com/rea-agent/rea/internal/wire"
)

// An issuing is a server with an authority.
type issuing struct {
	*running
	pki     *pki.Folder
	welcome string // where machines enrol
}

func startIssuing(t *testing.T, change func(*Config)) *issuing {
	t.Helper()
	dir := t.TempDir()
	f, err := pki.Init(filepath.Join(dir, "pki"), "example.org", identity.ECDSA, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	made, err := f.IssueServer([]string{"127.0.0.1"}, identity.ECDSA, filepath.Join(dir, "server"), time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	i := &issuing{pki: f}
	i.running = start(t, func(c *Config) {
		c.TLS = TLSSection{
			CertFile: filepath.Join(made.Dir, "server.crt"), KeyFile: filepath.Join(made.Dir, "server.key"),
			ClientCAFile: filepath.Join(f.Dir, "ca.crt"), DenylistFile: filepath.Join(f.Dir, "revoked.jsonl"),
		}
		c.Enroll.Listen, c.Enroll.PKIDir = "127.0.0.1:0", f.Dir
		if change != nil {
			change(c)
		}
	})
	eventually(t, "machines can enrol", func() bool {
		for line := range strings.Lines(i.log.String()) {
			var l struct{ Msg, Address string }
			if json.Unmarshal([]byte(line), &l) == nil && l.Msg == "machines can enrol" {
				i.welcome = l.Address
			}
		}
		return i.welcome != "" || i.config.Enroll.Listen == ""
	})
	return i
}

// agent returns a client with a certificate for that node, and its folder.
func (i *issuing) agent(node string, life time.Duration) *http.Client {
	i.t.Helper()
	dir := filepath.Join(i.t.TempDir(), "agent")
	if _, err := i.pki.IssueAgent(node, identity.ECDSA, dir, life); err != nil {
		i.t.Fatal(err)
	}
	at := func(name string) string { return filepath.Join(dir, name) }
	set, err := identity.LoadClient(identity.Client{CAFile: at("ca.crt"), CertFile: at("agent.crt"), KeyFile: at("agent.key"), Verify: true})
	if err != nil {
		i.t.Fatal(err)
	}
	return i.client(set.TLS)
}

// ask posts to a path and returns the status, and what the answer says.
func (i *issuing) ask(c *http.Client, url string, body []byte) (int, string, error) {
	i.t.Helper()
	resp, err := c.Post(url, "application/json", bytes.NewReader(body))
	if err != nil {
		return 0, "", err
	}
	defer resp.Body.Close()
	var answer wire.Enrolled
	return resp.StatusCode, answer.Error, json.NewDecoder(resp.Body).Decode(&answer)
}

func (i *issuing) request(token string) []byte {
	i.t.Helper()
	key, err := identity.NewKey(identity.ECDSA)
	if err != nil {
		i.t.Fatal(err)
	}
	csr, err := identity.NewRequest(key)
	if err != nil {
		i.t.Fatal(err)
	}
	b, err := json.Marshal(wire.EnrollRequest{Token: token, CSR: csr})
	if err != nil {
		i.t.Fatal(err)
	}
	return b
}

func TestOnlyWhoIsLetInCanRenew(t *testing.T) {
	i := startIssuing(t, nil)
	other := startIssuing(t, nil)
	node, denied := identity.NewNode(), identity.NewNode()
	agent, gone := i.agent(node, time.Hour), i.agent(denied, time.Hour)
	if _, err := pki.Revoke(i.pki.Dir, denied, "stolen", "", false); err != nil {
		t.Fatal(err)
	}
	url := "https://" + i.addr + wire.RenewPath
	eventually(t, "the denylist is obeyed", func() bool {
		status, _, err := i.ask(gone, url, i.request(""))
		return err == nil && status == http.StatusForbidden
	})
	if status, text, err := i.ask(gone, url, i.request("")); status != http.StatusForbidden || !strings.Contains(text, "revoked (stolen)") {
		t.Errorf("denied: %d %q %v", status, text, err)
	}
	if status, text, err := i.ask(agent, url, i.request("")); status != http.StatusOK || err != nil {
		t.Errorf("%d %q %v", status, text, err)
	}
	if status, _, err := i.ask(i.agent(node, -time.Minute), url, i.request("")); err == nil {
		t.Errorf("expired: %d", status)
	}
	strange := other.agent(node, time.Hour)
	strange.Transport.(*http.Transport).TLSClientConfig.RootCAs = nil
	strange.Transport.(*http.Transport).TLSClientConfig.InsecureSkipVerify = true
	if status, _, err := i.ask(strange, url, i.request("")); err == nil {
		t.Errorf("of another authority: %d", status)
	}
	if status, _, err := i.ask(i.client(&tls.Config{InsecureSkipVerify: true}), url, i.request("")); err == nil {
		t.Errorf("without a certificate: %d", status)
	}
	issued, err := pki.List(i.pki.Dir)
	if err != nil || issued[len(issued)-2].Node != node { // the last one is the expired one
		t.Errorf("%+v %v", issued, err)
	}
}

func TestNothingIsIssuedWithoutAnAuthority(t *testing.T) {
	i := startIssuing(t, func(c *Config) { c.Enroll.Listen, c.Enroll.PKIDir = "", "" })
	if status, _, err := i.ask(i.agent(identity.NewNode(), time.Hour), "https://"+i.addr+wire.RenewPath, i.request("")); status != http.StatusNotFound || err != nil {
		t.Errorf("%d %v", status, err)
	}
	if issued, err := pki.List(i.pki.Dir); err != nil || len(issued) != 2 {
		t.Errorf("%+v %v", issued, err)
	}
}

func TestStrangersCanDoNothingButEnrol(t *testing.T) {
	i := startIssuing(t, nil)
	_, token, err := pki.NewToken(i.pki.Dir, "lab-7", time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	first := identity.NewFirstContact(token, "127.0.0.1")
	stranger := i.client(first.TLS)
	at := "https://" + i.welcome
	for name, c := range map[string]struct {
		url  string
		body []byte
		want int
	}{
		"events":            {at + wire.IngestPath, nil, http.StatusNotFound},
		"another's renewal": {at + wire.RenewPath, i.request(""), http.StatusNotFound},
		"no token":          {at + wire.EnrollPath, i.request(""), http.StatusForbidden},
		"too much":          {at + wire.EnrollPath, make([]byte, wire.MaxEnroll+1), http.StatusRequestEntityTooLarge},
		"with a token":      {at + wire.EnrollPath, i.request(token.String()), http.StatusOK},
	} {
		if status, text, err := i.ask(stranger, c.url, c.body); status != c.want {
			t.Errorf("%s: %d %q %v", name, status, text, err)
		}
	}
	if status, _, _ := i.ask(stranger, at+wire.EnrollPath, i.request(token.String())); status != http.StatusForbidden {
		t.Errorf("with it again: %d", status)
	}
	for name, change := range map[string]func(*tls.Config){
		"TLS 1.2": func(c *tls.Config) { c.MinVersion, c.MaxVersion = tls.VersionTLS12, tls.VersionTLS12 },
		"HTTP/2":  func(c *tls.Config) { c.NextProtos = []string{"h2"} },
		"another name": func(c *tls.Config) {
			c.VerifyConnection = identity.NewFirstContact(token, "rea.test").TLS.VerifyConnection
		},
	} {
		config := first.TLS.Clone()
		change(config)
		if conn, err := tls.Dial("tcp", i.welcome, config); err == nil {
			conn.Close()
			t.Errorf("%s is spoken", name)
		}
	}
}

func TestTheListenerForStrangersFollowsTheCertificates(t *testing.T) {
	i := startIssuing(t, nil)
	_, token, err := pki.NewToken(i.pki.Dir, "lab-7", time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	again, err := i.pki.IssueServer([]string{"127.0.0.1"}, identity.ECDSA, filepath.Join(t.TempDir(), "next"), time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"server.key", "server.crt"} {
		text, err := os.ReadFile(filepath.Join(again.Dir, name))
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(filepath.Dir(i.config.TLS.CertFile), name), text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, "the new certificate is shown", func() bool {
		conn, err := tls.Dial("tcp", i.welcome, identity.NewFirstContact(token, "127.0.0.1").TLS)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		return identity.Serial(conn.ConnectionState().PeerCertificates[0]) == again.Serial
	})
}
