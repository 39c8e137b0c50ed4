//go:build hostile && linux

package main

import (
	"bufio"
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rea-agent/rea/internal/wire"
	"github.com/rea-agent/rea/test/rig"
)

var (
	requestsFlag = flag.Int("hostile.requests", 100_000, "hostile requests, about")
	slowFlag     = flag.Int("hostile.slow", 1000, "slow clients")
	roundsFlag   = flag.Int("hostile.rounds", 3, "rounds of measuring beside slow clients")
)

// bin is the folder of the server under test.
var bin string

func TestMain(m *testing.M) {
	os.Exit(rig.Main(m, func(dir string) []*exec.Cmd {
		bin = dir
		return []*exec.Cmd{rig.Build(dir, "rea-server")}
	}))
}

// A bench is a server, and the authority that makes certificates of its agents.
type bench struct {
	rig.Folder
	address string
	ca      tls.Certificate
	roots   *x509.CertPool
	server  *rig.Process
	mu      sync.Mutex // of what workers share

	agents []*honest     // that go on while others are measured
	each   time.Duration // what a batch of theirs costs
}

// newBench starts a server with these limits.
func newBench(t *testing.T, limits string) *bench {
	t.Helper()
	b := &bench{Folder: rig.Folder{T: t, Bin: bin, Dir: t.TempDir()}, address: rig.FreeAddress(t)}
	b.Certify("certs")
	var err error
	if b.ca, err = tls.LoadX509KeyPair(b.Path("certs/ca.crt"), b.Path("certs/ca.key")); err != nil {
		t.Fatal(err)
	}
	b.roots = x509.NewCertPool()
	b.roots.AddCert(b.ca.Leaf)
	b.Write("server.toml", rig.ServerConfig(b.address, "data", "certs")+"[limits]\n"+limits)
	b.server = b.Start("rea-server", "--config", "server.toml")
	b.Until("the server listens", func() bool { return rig.Answers(b.address) })
	return b
}

// node returns the name of the agent number n.
func node(n int) string { return fmt.Sprintf("0190d1c0-0000-7000-8000-%012x", n) }

// client returns what the agent of that node connects with.
func (b *bench) client(node string) *tls.Config {
	b.T.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		b.T.Fatal(err)
	}
	der, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
		URIs: []*url.URL{{Scheme: "spiffe", Host: "rea", Path: "/agent/" + node}},
	}, b.ca.Leaf, key.Public(), b.ca.PrivateKey)
	if err != nil {
		b.T.Fatal(err)
	}
	return &tls.Config{
		RootCAs: b.roots, ServerName: "127.0.0.1", MinVersion: tls.VersionTLS13,
		Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}},
	}
}

// cost is what the server has used so far.
func (b *bench) cpu() time.Duration {
	b.T.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", b.server.Process.Pid))
	if err != nil {
		b.T.Fatalf("the server is gone: %v\n%s", err, b.server.Said())
	}
	fields := strings.Fields(string(text[bytes.LastIndexByte(text, ')')+1:]))
	ticks := 0
	for _, f := range fields[11:13] { // utime and stime, in hundredths of a second
		n, err := strconv.Atoi(f)
		if err != nil {
			b.T.Fatal(err)
		}
		ticks += n
	}
	return time.Duration(ticks) * 10 * time.Millisecond
}

// memory returns a figure of /proc/PID/status, in bytes: VmRSS or VmHWM.
func (b *bench) memory(name string) int64 {
	b.T.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", b.server.Process.Pid))
	if err != nil {
		b.T.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		if rest, ok := strings.CutPrefix(line, name+":"); ok {
			n, err := strconv.ParseInt(strings.Fields(rest)[0], 10, 64)
			if err != nil {
				b.T.Fatal(err)
			}
			return n << 10
		}
	}
	b.T.Fatalf("no %s", name)
	return 0
}

// forgetPeak makes VmHWM begin at what there is now.
func (b *bench) forgetPeak() {
	b.T.Helper()
	if err := os.WriteFile(fmt.Sprintf("/proc/%d/clear_refs", b.server.Process.Pid), []byte("5"), 0); err != nil {
		b.T.Fatal(err)
	}
}

// A peer is a hostile client: it writes what it likes on its connection.
type peer struct {
	b     *bench
	node  string
	conf  *tls.Config // nil for no TLS
	from  string      // address, or "" for any
	conn  net.Conn
	read  *bufio.Reader
	tries int // requests so far
}

const peerTime = 20 * time.Second

func (p *peer) dial() error {
	d := net.Dialer{Timeout: peerTime}
	if p.from != "" {
		d.LocalAddr = &net.TCPAddr{IP: net.ParseIP(p.from)}
	}
	raw, err := d.Dial("tcp", p.b.address)
	if err != nil {
		return err
	}
	p.conn = raw
	if p.conf != nil {
		p.conn = tls.Client(raw, p.conf)
	}
	p.read = bufio.NewReader(p.conn)
	return nil
}

func (p *peer) hangUp() {
	if p.conn != nil {
		p.conn.Close()
		p.conn = nil
	}
}

// send writes a request and returns the status of the answer; 0 where there is
// none.
func (p *peer) send(request []byte) int {
	if p.conn == nil && p.dial() != nil {
		return 0
	}
	_ = p.conn.SetDeadline(time.Now().Add(peerTime))
	written := make(chan error, 1)
	go func() {
		_, err := p.conn.Write(request) // the server may answer before it has all, and hang up
		written <- err
	}()
	resp, err := http.ReadResponse(p.read, nil)
	if err != nil {
		p.conn.Close()
		<-written
		p.conn = nil
		return 0
	}
	_, err = io.Copy(io.Discard, resp.Body)
	if resp.Close || err != nil {
		p.conn.Close()
		<-written
		p.conn = nil
		return resp.StatusCode
	}
	if <-written != nil {
		p.hangUp()
	}
	return resp.StatusCode
}

// An honest agent, as far as the server can see: it numbers its events, sends
// them in batches, keeps what is not acknowledged and comes when it was told to.
type honest struct {
	b      *bench
	node   string
	stream string
	client *http.Client
	every  time.Duration

	mu     sync.Mutex
	sent   uint64 // and acknowledged
	failed int    // tries
	took   []time.Duration
}

func (b *bench) honest(n int, every time.Duration) *honest {
	conf := b.client(node(n))
	transport := &http.Transport{TLSClientConfig: conf}
	b.T.Cleanup(transport.CloseIdleConnections)
	return &honest{
		b: b, node: node(n), stream: fmt.Sprintf("%032x", n), every: every,
		client: &http.Client{Transport: transport, Timeout: 30 * time.Second},
	}
}

// run delivers until stop is closed.
func (h *honest) run(stop <-chan struct{}) {
	for {
		select {
		case <-stop:
			return
		case <-time.After(h.every):
		}
		began := time.Now()
		for !h.deliver() {
			time.Sleep(50 * time.Millisecond)
		}
		h.mu.Lock()
		h.took = append(h.took, time.Since(began))
		h.mu.Unlock()
	}
}

// deliver tries to have ten events kept.
func (h *honest) deliver() bool {
	first, last := h.sent+1, h.sent+10
	var body bytes.Buffer
	for n := first; n <= last; n++ {
		body.WriteString(line(h.node, h.stream, n, `{"utilization":0.117}`))
	}
	req, err := http.NewRequest(http.MethodPost, "https://"+h.b.address+wire.IngestPath, bytes.NewReader(wire.NewCompressor().Append(nil, body.Bytes())))
	if err != nil {
		panic(err)
	}
	wire.Batch{Stream: h.stream, First: first, Last: last, ID: "honest", Schema: 1, Assigned: last}.SetHeader(req.Header)
	req.Header.Set("Content-Encoding", wire.Zstd)
	resp, err := h.client.Do(req)
	h.mu.Lock()
	defer h.mu.Unlock()
	if err != nil {
		h.failed++
		return false
	}
	defer resp.Body.Close()
	var a wire.Answer
	if json.NewDecoder(resp.Body).Decode(&a) != nil || resp.StatusCode != http.StatusOK || a.Last < last {
		h.failed++
		return false
	}
	h.sent = last
	return true
}

// take returns how long batches took since the last call.
func (h *honest) take() []time.Duration {
	h.mu.Lock()
	defer h.mu.Unlock()
	took := h.took
	h.took = nil
	return took
}

// check does the arithmetic: what was acknowledged is kept, each number once.
func (h *honest) check() {
	h.b.T.Helper()
	type account struct{ Received, Assigned, Waiting, Undeclared uint64 }
	accounts := rig.Each[account](h.b.T, h.b.Must("rea-server", "verify", "--config", "server.toml", "--node", h.node, "--json"))
	if len(accounts) == 0 || accounts[0].Received != h.sent || accounts[0].Assigned != h.sent || h.sent == 0 {
		h.b.T.Errorf("honest agent %s: %d events were acknowledged, the server has %+v", h.node, h.sent, accounts)
	}
}

// line returns an event.
func line(node, stream string, seq uint64, body string) string {
	return fmt.Sprintf(`{"v":1,"time":"2026-01-02T03:04:05Z","node":%q,"hostname":"lab-7","stream":%q,"seq":%d,"kind":"cpu","cpu":%s}`+"\n", node, stream, seq, body)
}
