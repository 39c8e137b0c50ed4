package server

import (
	"bufio"
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
	"unicode"

	"github.com/rea-agent/rea/internal/identity"
	"github.com/rea-agent/rea/internal/wire"
)

const stream = "7f3a00000000000000000000000000c1"

// running is a server of its own, on a socket of this machine.
type running struct {
	t      *testing.T
	config Config
	certs  string
	node   string
	addr   string
	log    *logbook
	stop   func() error
}

// logbook hands over the address when the server says that it listens.
type logbook struct {
	mu   sync.Mutex
	text bytes.Buffer
	addr chan string
}

func (l *logbook) Write(p []byte) (int, error) {
	var line struct{ Msg, Address string }
	if json.Unmarshal(p, &line) == nil && line.Msg == "listening" {
		l.addr <- line.Address
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *logbook) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

func configure(t *testing.T) (c Config, certs, node string) {
	t.Helper()
	dir := t.TempDir()
	made, err := MakeCertificates(filepath.Join(dir, "certs"), nil)
	if err != nil {
		t.Fatal(err)
	}
	c = Default()
	c.Server = ServerSection{Listen: "127.0.0.1:0", DataDir: filepath.Join(dir, "data")}
	c.TLS = TLSSection{CertFile: filepath.Join(made.Dir, "server.crt"), KeyFile: filepath.Join(made.Dir, "server.key"), ClientCAFile: filepath.Join(made.Dir, "ca.crt")}
	return c, made.Dir, made.Node
}

func start(t *testing.T, change func(*Config)) *running {
	t.Helper()
	c, certs, node := configure(t)
	if change != nil {
		change(&c)
	}
	r := &running{t: t, config: c, certs: certs, node: node}
	r.again()
	return r
}

// again starts the server on the same data.
func (r *running) again() {
	r.t.Helper()
	r.log = &logbook{addr: make(chan string, 1)}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- Run(ctx, Options{Config: r.config, Log: slog.New(slog.NewJSONHandler(r.log, nil))}) }()
	r.stop = sync.OnceValue(func() error { cancel(); return <-done })
	r.t.Cleanup(func() {
		if err := r.stop(); err != nil {
			r.t.Error(err)
		}
	})
	select {
	case r.addr = <-r.log.addr:
	case err := <-done:
		r.t.Fatal(err)
	}
}

func (r *running) clientTLS() *tls.Config {
	r.t.Helper()
	file := func(name string) string { return filepath.Join(r.certs, name) }
	c, err := identity.ClientTLS(identity.Client{CAFile: file("ca.crt"), CertFile: file("agent.crt"), KeyFile: file("agent.key"), Verify: true})
	if err != nil {
		r.t.Fatal(err)
	}
	return c
}

func (r *running) client(conf *tls.Config) *http.Client {
	transport := &http.Transport{TLSClientConfig: conf}
	r.t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport, Timeout: 30 * time.Second}
}

func (r *running) lines(node string, first, last uint64) []byte {
	var b bytes.Buffer
	for n := first; n <= last; n++ {
		fmt.Fprintf(&b, `{"v":1,"time":"2026-01-02T03:04:05Z","node":%q,"hostname":"lab-7","stream":%q,"seq":%d,"kind":"cpu","cpu":{"utilization":0.117}}`+"\n", node, stream, n)
	}
	return b.Bytes()
}

func (r *running) post(c *http.Client, body []byte, first, last uint64) (int, wire.Answer, error) {
	req, err := http.NewRequest(http.MethodPost, "https://"+r.addr+wire.IngestPath, bytes.NewReader(wire.NewCompressor().Append(nil, body)))
	if err != nil {
		r.t.Fatal(err)
	}
	wire.Batch{Stream: stream, First: first, Last: last, ID: "b", Schema: 1, Assigned: last}.SetHeader(req.Header)
	req.Header.Set("Content-Encoding", wire.Zstd)
	resp, err := c.Do(req)
	if err != nil {
		return 0, wire.Answer{}, err
	}
	defer resp.Body.Close()
	var a wire.Answer
	return resp.StatusCode, a, json.NewDecoder(resp.Body).Decode(&a)
}

func (r *running) stored() (seqs []uint64) {
	r.t.Helper()
	reader, err := OpenReader(r.config.Server.DataDir)
	if err != nil {
		r.t.Fatal(err)
	}
	defer reader.Close()
	if _, err := reader.Events(r.t.Context(), Filter{}, func(l *Line) error { seqs = append(seqs, l.Seq); return nil }); err != nil {
		r.t.Fatal(err)
	}
	return seqs
}

func TestFromTheSocketToTheDisk(t *testing.T) {
	r := start(t, nil)
	c := r.client(r.clientTLS())
	for _, step := range []struct {
		first, last, high uint64
		status            int
	}{
		{1, 3, 3, 200},
		{1, 3, 3, 200}, // a repeat
		{2, 5, 5, 200}, // an overlap
		{9, 9, 9, 200}, // a hole
	} {
		status, a, err := r.post(c, r.lines(r.node, step.first, step.last), step.first, step.last)
		if err != nil || status != step.status || a.Last != step.high {
			t.Errorf("%+v: %d %+v %v", step, status, a, err)
		}
	}
	other := bytes.Replace(r.lines(r.node, 1, 3), []byte("0.117"), []byte("0.118"), 1)
	if status, a, err := r.post(c, other, 1, 3); err != nil || status != 409 || a.Last != 9 || !strings.Contains(a.Error, "cloned") {
		t.Errorf("other content: %d %+v %v", status, a, err)
	}
	if status, a, err := r.post(c, r.lines("0190d1c0-0000-7000-8000-00000000000b", 10, 10), 10, 10); err != nil || status != 403 || a.Line != 1 {
		t.Errorf("another node: %d %+v %v", status, a, err)
	}
	want := "[1 2 3 4 5 9]"
	if got := fmt.Sprint(r.stored()); got != want { // beside the server
		t.Errorf("stored %s", got)
	}
	if err := r.stop(); err != nil {
		t.Fatal(err)
	}
	if got := fmt.Sprint(r.stored()); got != want { // after it
		t.Errorf("stored %s", got)
	}
	r.again()
	if status, a, err := r.post(c, r.lines(r.node, 9, 10), 9, 10); err != nil || status != 200 || a.Last != 10 {
		t.Errorf("after a restart: %d %+v %v", status, a, err)
	}
	if log := r.log.String(); !strings.Contains(log, `"listening"`) {
		t.Error(log)
	}
}

// issue signs a certificate with the key of the authority in certs.
func (r *running) issue(change func(*x509.Certificate), caDir string) tls.Certificate {
	r.t.Helper()
	ca, err := tls.LoadX509KeyPair(filepath.Join(caDir, "ca.crt"), filepath.Join(caDir, "ca.key"))
	if err != nil {
		r.t.Fatal(err)
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		r.t.Fatal(err)
	}
	c := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
		URIs: []*url.URL{{Scheme: "spiffe", Host: "rea", Path: "/agent/" + r.node}},
	}
	change(c)
	der, err := x509.CreateCertificate(rand.Reader, c, ca.Leaf, key.Public(), ca.PrivateKey)
	if err != nil {
		r.t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

func TestWhoIsLetIn(t *testing.T) {
	r := start(t, nil)
	others := filepath.Join(t.TempDir(), "others")
	if _, err := MakeCertificates(others, nil); err != nil {
		t.Fatal(err)
	}
	body := r.lines(r.node, 1, 1)
	for _, c := range []struct {
		name   string
		change func(*x509.Certificate)
		ca     string
		status int    // 0: refused in the handshake
		want   string // what identity.Explain says
	}{
		{"an agent", func(*x509.Certificate) {}, r.certs, 200, ""},
		{"an agent of another authority", func(*x509.Certificate) {}, others, 0, "client_ca_file"},
		{"an agent that has expired", func(c *x509.Certificate) { c.NotAfter = time.Now().Add(-time.Minute) }, r.certs, 0, "expired"},
		{"a server", func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth} }, r.certs, 0, "clientAuth"},
		{"nobody", func(c *x509.Certificate) { c.URIs = nil }, r.certs, 403, ""},
		{"two agents", func(c *x509.Certificate) { c.URIs = append(c.URIs, c.URIs[0]) }, r.certs, 403, ""},
		{"another agent", func(c *x509.Certificate) { c.URIs[0].Path = "/agent/0190d1c0-0000-7000-8000-00000000000b" }, r.certs, 403, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			conf := r.clientTLS()
			cert := r.issue(c.change, c.ca)
			conf.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &cert, nil }
			status, a, err := r.post(r.client(conf), body, 1, 1)
			if status != c.status || (err != nil) != (c.status == 0) || !strings.Contains(identity.Explain(err), c.want) {
				t.Errorf("%d %+v, %v (%s)", status, a, err, identity.Explain(err))
			}
		})
	}
	t.Run("without a certificate", func(t *testing.T) {
		conf := r.clientTLS()
		conf.GetClientCertificate = nil
		if _, _, err := r.post(r.client(conf), body, 1, 1); !strings.Contains(identity.Explain(err), "wants a client certificate") {
			t.Error(err)
		}
	})
	if got := r.stored(); len(got) != 1 {
		t.Errorf("stored %v", got)
	}
}

// raw sends text as it is and returns the status line of the answer.
func (r *running) raw(text string) string {
	r.t.Helper()
	conf := r.clientTLS()
	conf.ServerName = "127.0.0.1"
	c, err := tls.Dial("tcp", r.addr, conf)
	if err != nil {
		r.t.Fatal(err)
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(30 * time.Second))
	go io.WriteString(c, text) // the server may hang up before it has all
	status, err := bufio.NewReader(c).ReadString('\n')
	if err != nil && status == "" {
		return err.Error()
	}
	return strings.TrimSpace(status)
}

func TestWhatIsNoRequestOfAnAgent(t *testing.T) {
	r := start(t, func(c *Config) { c.Limits.ReadTimeout = 500 * time.Millisecond })
	for name, c := range map[string]struct{ text, want string }{
		"another path":             {"POST /../ingest HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n", "404"},
		"a path with dots inside":  {"POST /ingest/../ingest HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n", "404"},
		"the root":                 {"GET / HTTP/1.1\r\nHost: x\r\n\r\n", "404"},
		"no HTTP":                  {"hello\r\n\r\n", "400"},
		"huge headers":             {"POST /ingest HTTP/1.1\r\nHost: x\r\nX: " + strings.Repeat("x", 1<<20) + "\r\n\r\n", "431"},
		"many headers":             {"POST /ingest HTTP/1.1\r\nHost: x\r\n" + strings.Repeat("X: x\r\n", 1<<16) + "\r\n", "431"},
		"two lengths":              {"POST /ingest HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n", "400"},
		"HTTP/2":                   {"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "404"},
		"a head that does not end": {"POST /ingest HTTP/1.1\r\nHost: x\r\n", "EOF"},
	} {
		if got := r.raw(c.text); !strings.Contains(got, c.want) {
			t.Errorf("%s: %q, want %s", name, got, c.want)
		}
	}
	if status, _, err := r.post(r.client(r.clientTLS()), r.lines(r.node, 1, 1), 1, 1); err != nil || status != 200 {
		t.Errorf("an agent after all that: %d, %v", status, err)
	}
}

func TestAnIdleConnectionGivesWay(t *testing.T) {
	r := start(t, func(c *Config) { c.Limits.MaxConnections = 1 })
	first, second := r.client(r.clientTLS()), r.client(r.clientTLS())
	for n := range uint64(6) {
		c := first
		if n%2 == 1 {
			c = second
		}
		if status, _, err := r.post(c, r.lines(r.node, n+1, n+1), n+1, n+1); err != nil || status != 200 {
			t.Fatal(n, status, err)
		}
	}
}

// Over real TLS: who sends what no agent sends is slowed and cut off, and named by
// its node; another agent does not notice.
func TestAnAgentThatMisbehavesIsCutOff(t *testing.T) {
	r := start(t, func(c *Config) { c.Limits.SlowAfter, c.Limits.CutAfter = 3, 6 })
	const wrong = "POST /etc/passwd HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n"
	statuses := map[string]int{}
	for range 100 {
		statuses[r.raw(wrong)]++
	}
	if statuses["HTTP/1.1 404 Not Found"] < 3 || statuses["HTTP/1.1 429 Too Many Requests"] < 50 {
		t.Errorf("answered %v", statuses)
	}
	for _, want := range []string{"client is slowed for what it did", "client is cut off for what it did"} {
		said := 0
		for line := range strings.Lines(r.log.String()) {
			if strings.Contains(line, want) && strings.Contains(line, `"client":"`+r.node) {
				said++
			}
		}
		if said != 1 {
			t.Errorf("%q was said %d times of %s:\n%s", want, said, r.node, r.log.String())
		}
	}
	const other = "0190d1c0-0000-7000-8000-00000000000b"
	conf := r.clientTLS()
	cert := r.issue(func(c *x509.Certificate) { c.URIs[0].Path = "/agent/" + other }, r.certs)
	conf.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &cert, nil }
	if status, a, err := r.post(r.client(conf), r.lines(other, 1, 1), 1, 1); err != nil || status != 200 {
		t.Errorf("another agent: %d %+v %v", status, a, err)
	}
}

func TestFollowSeesWhatArrives(t *testing.T) {
	r := start(t, nil)
	c := r.client(r.clientTLS())
	if _, _, err := r.post(c, r.lines(r.node, 1, 3), 1, 3); err != nil {
		t.Fatal(err)
	}
	reader, err := OpenReader(r.config.Server.DataDir)
	if err != nil {
		t.Fatal(err)
	}
	defer reader.Close()
	ctx, cancel := context.WithCancel(t.Context())
	var seen []uint64
	err = reader.Follow(ctx, Filter{Limit: 1}, func(l *Line) error {
		switch seen = append(seen, l.Seq); l.Seq {
		case 3:
			r.post(c, r.lines(r.node, 4, 5), 4, 5)
		case 5:
			cancel()
		}
		return nil
	})
	if err != nil || fmt.Sprint(seen) != "[3 4 5]" {
		t.Errorf("saw %v, %v", seen, err)
	}
}

func TestWhatKeepsAServerFromStarting(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	for name, c := range map[string]struct {
		change func(*Config)
		is     error
		want   string
	}{
		"a taken address":     {func(c *Config) { c.Server.Listen = taken.Addr().String() }, ErrAddress, taken.Addr().String()},
		"a missing key":       {func(c *Config) { c.TLS.KeyFile += ".gone" }, ErrConfig, "server.key.gone does not exist"},
		"a file as data":      {func(c *Config) { c.Server.DataDir = c.TLS.CertFile }, ErrData, "server.crt"},
		"a key as CA":         {func(c *Config) { c.TLS.ClientCAFile = c.TLS.KeyFile }, ErrConfig, "is a private key"},
		"a damaged authority": {func(c *Config) { c.TLS.ClientCAFile = damage(t, c.TLS.ClientCAFile) }, ErrConfig, "damaged"},
	} {
		config, _, _ := configure(t)
		c.change(&config)
		if err := Run(t.Context(), Options{Config: config, Log: slog.New(slog.DiscardHandler)}); !errors.Is(err, c.is) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func damage(t *testing.T, name string) string {
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	block, _ := pem.Decode(b)
	block.Bytes = block.Bytes[:len(block.Bytes)/2]
	out := filepath.Join(t.TempDir(), "ca.crt")
	if err := os.WriteFile(out, pem.EncodeToMemory(block), 0o600); err != nil {
		t.Fatal(err)
	}
	return out
}

// Whatever an agent writes where the server repeats it: nothing of it can act on
// the terminal of who reads the log, nor begin a line of its own.
func TestTheLogShowsForeignTextHarmless(t *testing.T) {
	r := start(t, nil)
	const evil = "\u009b2J\u202e\ufeff\u2028 evil"
	for _, header := range []string{"Rea-Batch", "Rea-Stream", "User-Agent", "Content-Type", "X-" + "Other"} {
		req := "POST /ingest HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n" + header + ": " + evil + "\r\n\r\n"
		if got := r.raw(req); !strings.Contains(got, " 4") {
			t.Errorf("%s: %s", header, got)
		}
	}
	r.raw("POST /" + evil + " HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n")
	body := bytes.Replace(r.lines(r.node, 1, 1), []byte(`"lab-7"`), []byte(`"`+evil+`"`), 1)
	if status, _, err := r.post(r.client(r.clientTLS()), bytes.Replace(body, []byte(stream), []byte(evil), 1), 1, 1); err != nil || status != 422 {
		t.Error(status, err)
	}
	errorLog(slog.New(slog.NewJSONHandler(r.log, nil))).Printf("http: TLS handshake error from 192.0.2.7:1: x509: the name \x1b[2J%s\n\tis not known", evil)
	for _, c := range r.log.String() {
		if c != '\n' && !unicode.IsPrint(c) {
			t.Fatalf("the log has %q:\n%q", c, r.log.String())
		}
	}
	if n := strings.Count(r.log.String(), "request refused"); n < 2 || !strings.Contains(r.log.String(), "is not known") {
		t.Errorf("said %d times:\n%s", n, r.log.String())
	}
}

func TestHandshakeTroubleIsLoggedOnce(t *testing.T) {
	var out bytes.Buffer
	l := errorLog(slog.New(slog.NewTextHandler(&out, nil)))
	for port := range 5 {
		l.Printf("http: TLS handshake error from 192.0.2.7:%d: tls: client didn't provide a certificate", 4000+port)
		l.Printf("http: TLS handshake error from 192.0.2.7:%d: EOF", 4000+port)
	}
	if got := strings.Count(out.String(), "\n"); got != 1 || !strings.Contains(out.String(), "client=192.0.2.7:4000") {
		t.Errorf("logged:\n%s", out.String())
	}
}
