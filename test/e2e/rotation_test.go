package e2e

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/pem"
	"flag"
	"fmt"
	"math/big"
	"net"
	"net/url"
	"os"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/rea-agent/rea/test/rig"
)

var rotations = flag.Int("rotations", 100, "how often everything is exchanged")

const rotatedNode = "0190d1c0-0000-7000-8000-0000000000aa"

// A pair is a certificate and its key.
type pair struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func (p *pair) pem() string {
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: p.cert.Raw}))
}

func (p *pair) keyPEM(t *testing.T) string {
	t.Helper()
	der, err := x509.MarshalPKCS8PrivateKey(p.key)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}))
}

func (p *pair) pin() string {
	sum := sha256.Sum256(p.cert.RawSubjectPublicKeyInfo)
	return base64.StdEncoding.EncodeToString(sum[:])
}

// sign makes a certificate like c; by itself where ca is nil.
func sign(t *testing.T, ca *pair, c *x509.Certificate) *pair {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	if c.SerialNumber, err = rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 100)); err != nil {
		t.Fatal(err)
	}
	if c.NotBefore.IsZero() {
		c.NotBefore, c.NotAfter = time.Now().Add(-time.Hour), time.Now().Add(time.Hour)
	}
	c.BasicConstraintsValid = true
	by := ca
	if ca == nil {
		by = &pair{c, key}
	}
	der, err := x509.CreateCertificate(rand.Reader, c, by.cert, key.Public(), by.key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return &pair{cert, key}
}

func authority(t *testing.T, name string) *pair {
	return sign(t, nil, &x509.Certificate{Subject: pkix.Name{CommonName: name}, IsCA: true, KeyUsage: x509.KeyUsageCertSign})
}

func serverOf(t *testing.T, ca *pair) *pair {
	return sign(t, ca, &x509.Certificate{
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	})
}

func agentOf(t *testing.T, ca *pair, change func(*x509.Certificate)) *pair {
	c := &x509.Certificate{
		URIs:     []*url.URL{{Scheme: "spiffe", Host: "rea", Path: "/agent/" + rotatedNode}},
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}
	if change != nil {
		change(c)
	}
	return sign(t, ca, c)
}

// replace exchanges a file in one step, as a tool that renews certificates does.
func (b *bench) replace(name, text string) {
	b.T.Helper()
	b.Write(name+".new", text)
	if err := os.Rename(b.Path(name+".new"), b.Path(name)); err != nil {
		b.T.Fatal(err)
	}
}

func (b *bench) install(name string, p *pair) {
	b.T.Helper()
	b.replace("certs/"+name+".key", p.keyPEM(b.T))
	b.replace("certs/"+name+".crt", p.pem())
}

// figure returns a series of /metrics as it is written there.
func figure(address, series string) string {
	for line := range strings.Lines(rig.Page(address, "/metrics")) {
		if rest, ok := strings.CutPrefix(line, series+" "); ok {
			return strings.TrimSpace(rest)
		}
	}
	return ""
}

const loaded = `rea_tls_loaded_timestamp_seconds{what="certificates"}`

// A rotation is a bench whose certificates are exchanged while it runs.
type rotation struct {
	*bench
	serverStatus  string
	server, agent *rig.Process
}

func newRotation(t *testing.T) *rotation {
	r := &rotation{bench: newBench(t, strings.ReplaceAll(fast, "= 200", "= 100")), serverStatus: rig.FreeAddress(t)}
	text, err := os.ReadFile(r.Path("server.toml"))
	if err != nil {
		t.Fatal(err)
	}
	r.Write("server.toml", string(text)+r.statusConfig())
	return r
}

// statusConfig has the server show how it is.
func (r *rotation) statusConfig() string {
	_, port, _ := net.SplitHostPort(r.serverStatus)
	return "[status]\nenabled = true\nport = " + port + "\n"
}

// pins writes them into the agent's configuration.
func (r *rotation) pins(list ...*pair) {
	r.T.Helper()
	text, err := os.ReadFile(r.Path("agent.toml"))
	if err != nil {
		r.T.Fatal(err)
	}
	quoted := make([]string, len(list))
	for i, p := range list {
		quoted[i] = strconv.Quote(p.pin())
	}
	line := "spki_pins = [" + strings.Join(quoted, ", ") + "]\n"
	old := regexp.MustCompile(`(?m)^spki_pins = .*\n`)
	if now := string(text); old.MatchString(now) {
		r.replace("agent.toml", old.ReplaceAllLiteralString(now, line))
	} else {
		r.replace("agent.toml", strings.Replace(now, "[tls]\n", "[tls]\n"+line, 1))
	}
}

// taken makes a change and waits until both have loaded it.
func (r *rotation) taken(hangup bool, change func()) {
	r.T.Helper()
	var server, agent string
	r.Until("both tell when they loaded", func() bool {
		server, agent = figure(r.serverStatus, loaded), figure(r.status, loaded)
		return server != "" && agent != ""
	})
	change()
	if hangup {
		for _, p := range []*rig.Process{r.server, r.agent} {
			_ = p.Process.Signal(syscall.SIGHUP)
		}
	}
	r.Until("both have loaded what changed", func() bool {
		s, a := figure(r.serverStatus, loaded), figure(r.status, loaded)
		return s != "" && a != "" && s != server && a != agent
	})
}

// sent waits until the agent has sent so many batches more.
func (r *rotation) sent(more int) {
	r.T.Helper()
	count := func() int {
		n, _ := strconv.Atoi(figure(r.status, `rea_batches_sent_total{lane="metrics"}`))
		return n
	}
	from := count()
	r.Until("batches are sent", func() bool { return count() >= from+more })
}

// Everything is exchanged again and again while events flow: the certificates and
// keys of both, the authority through an overlap, and the pins. No batch may fail.
func TestEverythingRotatesUnderLoad(t *testing.T) {
	r := newRotation(t)
	ca := authority(t, "first")
	server := serverOf(t, ca)
	r.Write("certs/ca.crt", ca.pem())
	r.install("server", server)
	r.install("agent", agentOf(t, ca, nil))
	r.pins(server)
	r.server = r.bench.server()
	r.agent = r.bench.agent()
	r.taken(false, func() {}) // each loads once more after it started
	r.sent(2)
	n := *rotations
	if testing.Short() {
		n = 5
	}
	for i := range n {
		hangup := i != n/2 // that once they find out by themselves
		next := authority(t, fmt.Sprint("authority ", i))
		nextServer := serverOf(t, next)
		r.taken(hangup, func() {
			r.replace("certs/ca.crt", ca.pem()+next.pem())
			r.pins(server, nextServer)
		})
		r.taken(hangup, func() {
			r.install("server", nextServer)
			r.install("agent", agentOf(t, next, nil))
		})
		r.sent(2) // one may have been on its way with the old certificate
		r.taken(hangup, func() {
			r.replace("certs/ca.crt", next.pem())
			r.pins(nextServer)
		})
		ca, server = next, nextServer
	}
	r.sent(2)
	for line := range strings.Lines(rig.Page(r.status, "/metrics")) {
		if strings.HasPrefix(line, "rea_batch_errors_total") && !strings.HasSuffix(line, " 0\n") {
			t.Errorf("batches failed: %s", line)
		}
	}
	if got := figure(r.status, `rea_tls_reload_success{what="certificates"}`); got != "1" {
		t.Errorf("rea_tls_reload_success of the agent is %s", got)
	}
	for p, words := range map[*rig.Process][]string{
		r.server: {"refused", "connection closed", "not taken"},
		r.agent:  {"not delivered", "not taken", "lost"},
	} {
		for _, word := range words {
			if strings.Contains(p.Said(), word) {
				t.Errorf("%s says %q:\n%s", p.Path, word, p.Said())
			}
		}
	}
	r.agent.Stop(0)
	r.agent = r.bench.agent() // delivers what the last one said when it stopped
	r.verify()
	r.agent.Kill()
	r.server.Stop(0)
	events := r.stored()
	checkBooks(t, events)
	t.Logf("%d rotations, %d events, no batch failed", n, len(events))
}

func TestAnAgentStartsWithAnExpiredCertificateAndDeliversWhenItIsReplaced(t *testing.T) {
	r := newRotation(t)
	ca := authority(t, "an authority")
	r.Write("certs/ca.crt", ca.pem())
	r.install("server", serverOf(t, ca))
	r.install("agent", agentOf(t, ca, func(c *x509.Certificate) {
		c.NotBefore, c.NotAfter = time.Now().Add(-2*time.Hour), time.Now().Add(-time.Hour)
	}))
	r.server = r.bench.server()
	r.agent = r.bench.agent()
	r.Until("the agent says that its certificate has expired", func() bool { return strings.Contains(r.agent.Said(), "expired") })
	r.Until("/healthz says so", func() bool {
		p := rig.Page(r.status, "/healthz")
		return strings.Contains(p, `"status": "degraded"`) && strings.Contains(p, "certs/agent.crt expired")
	})
	r.Until("events are queued", func() bool {
		n, _ := strconv.Atoi(figure(r.status, `rea_queue_events{lane="metrics"}`))
		return n > 20
	})
	if n := len(r.stored()); n != 0 {
		t.Errorf("%d events were delivered with a certificate that has expired", n)
	}
	r.replace("certs/agent.key", "-----BEGIN PRIV") // half of one, for now
	r.Until("the agent says that it cannot take that", func() bool {
		return strings.Contains(r.agent.Said(), "what changed is not taken")
	})
	if got := figure(r.status, `rea_tls_reload_success{what="certificates"}`); got != "0" {
		t.Errorf("rea_tls_reload_success is %s", got)
	}
	r.install("agent", agentOf(t, ca, nil))
	r.Until("events are delivered", func() bool { return len(r.stored()) > 20 })
	r.Until("all is well", func() bool { return strings.Contains(rig.Page(r.status, "/healthz"), `"status": "ok"`) })
	if n := strings.Count(r.agent.Said(), "what changed is not taken"); n > 3 {
		t.Errorf("said %d times:\n%s", n, r.agent.Said())
	}
	r.agent.Stop(0)
	r.agent = r.bench.agent()
	r.verify()
	r.agent.Kill()
	r.server.Stop(0)
	checkBooks(t, r.stored())
}
