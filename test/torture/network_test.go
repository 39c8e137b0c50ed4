//go:build torture && linux

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/rea-agent/rea/internal/identity"
	"github.com/rea-agent/rea/internal/wire"
	"github.com/rea-agent/rea/test/rig"
)

// impatient makes what gets lost on the way cost little time.
var impatient = quick{extra: "timeout_ms = 400"}

// TestABadNetwork has every connection of the agent harmed, at random.
func TestABadNetwork(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	p := newProxy(t, b.address, b.rng)
	b.endpoint = p.listener.Addr().String()
	b.startServer()
	b.startAgent(impatient)
	enough := func() bool {
		p.mu.Lock()
		defer p.mu.Unlock()
		for _, h := range harms {
			if p.count[h] < 5 {
				return false
			}
		}
		return true
	}
	b.until("every harm was done five times", enough)
	p.heal()
	many := 0
	for _, n := range p.count {
		many += n
	}
	t.Logf("harmed: %v", p.count)
	if r := b.settle("connections delayed, cut, reset, swallowed, garbled", many); r.declared > 0 {
		t.Errorf("%d numbers are declared missing, and only the network was bad", r.declared)
	}
}

// A storm stands before the server and answers in its place now and then, before
// or after it has passed a request on.
type storm struct {
	next http.Handler

	mu    sync.Mutex
	rng   *rand.Rand
	rages bool
	count map[string]int
	last  []byte // the answer before, to whatever request
}

// Without passing on: these statuses. 401 and 403 are not among them, since they
// make the agent wait for half a minute, which the tests of the sender do in
// virtual time.
var refusals = []int{204, 299, 302, 400, 404, 408, 409, 413, 422, 429, 451, 500, 502, 503, 504, 505}

// spoils are the wrong answers to a request that was passed on and kept.
var spoils = []string{
	"a status 500", "a status 503", "a page of somebody else", "a lower number", "half an answer", "nothing", "the answer before", "two answers",
	"garbage", "null", "a number that is none", "an answer without end", "a late answer",
}

// draw returns what becomes of a request: nothing, a status before it is passed
// on, or a spoiled answer after that.
func (s *storm) draw() (status int, spoil string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.rages {
		return 0, ""
	}
	switch n := s.rng.IntN(100); {
	case n < 35:
		status = refusals[s.rng.IntN(len(refusals))]
		s.count[strconv.Itoa(status)]++
	case n < 65:
		spoil = spoils[s.rng.IntN(len(spoils))]
		s.count["kept, then "+spoil]++
	}
	return status, spoil
}

func (s *storm) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	status, spoil := s.draw()
	if status == 0 && spoil == "" {
		s.next.ServeHTTP(w, r)
		return
	}
	if status != 0 {
		_, _ = io.Copy(io.Discard, r.Body)
		if status == 429 || status == 503 {
			w.Header().Set("Retry-After", "1")
		}
		w.WriteHeader(status)
		fmt.Fprintf(w, `{"last":0,"error":"it storms","line":1}`)
		return
	}
	answer := &recorder{header: http.Header{}}
	s.next.ServeHTTP(answer, r)
	s.mu.Lock()
	before := s.last
	s.last = answer.Bytes()
	s.mu.Unlock()
	if spoil == "the answer before" {
		_, _ = w.Write(before)
		return
	}
	s.spoiled(w, spoil, answer)
}

// spoiled gives a wrong answer to a request that was passed on.
func (s *storm) spoiled(w http.ResponseWriter, spoil string, answer *recorder) {
	switch spoil {
	case "a status 500":
		w.WriteHeader(http.StatusInternalServerError)
	case "a status 503":
		w.WriteHeader(http.StatusServiceUnavailable)
	case "a page of somebody else":
		fmt.Fprint(w, "<html>sign in</html>")
	case "a lower number":
		var a wire.Answer
		_ = json.Unmarshal(answer.Bytes(), &a)
		a.Last /= 2
		_ = json.NewEncoder(w).Encode(a)
	case "half an answer":
		w.Header().Set("Content-Length", strconv.Itoa(answer.Len()))
		_, _ = w.Write(answer.Bytes()[:answer.Len()/2])
	case "null", "a number that is none":
		fmt.Fprint(w, map[string]string{"null": "null", "a number that is none": `{"last":18446744073709551616}`}[spoil])
	case "an answer without end":
		for range 100 {
			_, _ = w.Write(bytes.Repeat([]byte(`{"last":1e`), 1<<10))
		}
	case "a late answer":
		time.Sleep(600 * time.Millisecond) // the agent waits for 400
		_, _ = w.Write(answer.Bytes())
	case "garbage":
		s.raw(w, []byte("\x00\xff\r\n\r\nHTTP/9.9 two hundred\r\n"))
	case "two answers":
		one := fmt.Appendf(nil, "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s", answer.Len(), answer.Bytes())
		s.raw(w, append(one, one...)) // the second may be taken for the answer to the next request
	default:
		panic(http.ErrAbortHandler)
	}
}

// raw writes bytes in place of an answer, and hangs up a moment later.
func (s *storm) raw(w http.ResponseWriter, b []byte) {
	c, _, err := w.(http.Hijacker).Hijack()
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	defer c.Close()
	_, _ = c.Write(b)
	time.Sleep(100 * time.Millisecond)
}

// A recorder keeps an answer.
type recorder struct {
	bytes.Buffer
	header http.Header
}

func (r *recorder) Header() http.Header { return r.header }
func (r *recorder) WriteHeader(int)     {}

// newStorm listens in front of the server of the bench, with its certificate, and
// passes on with that of the agent.
func (b *bench) newStorm() *storm {
	b.T.Helper()
	client, err := identity.ClientTLS(identity.Client{CAFile: b.Path("certs/ca.crt"), CertFile: b.Path("certs/agent.crt"), KeyFile: b.Path("certs/agent.key"), Verify: true})
	if err != nil {
		b.T.Fatal(err)
	}
	serving, err := identity.ServerTLS(identity.Server{CertFile: b.Path("certs/server.crt"), KeyFile: b.Path("certs/server.key"), ClientCAFile: b.Path("certs/ca.crt")})
	if err != nil {
		b.T.Fatal(err)
	}
	through := httputil.NewSingleHostReverseProxy(&url.URL{Scheme: "https", Host: b.address})
	through.Transport = &http.Transport{TLSClientConfig: client}
	through.ErrorLog = log.New(io.Discard, "", 0)
	s := &storm{next: through, rng: rand.New(rand.NewPCG(b.rng.Uint64(), 3)), rages: true, count: map[string]int{}}
	l, err := net.Listen("tcp", rig.FreeAddress(b.T))
	if err != nil {
		b.T.Fatal(err)
	}
	b.endpoint = l.Addr().String()
	srv := &http.Server{Handler: s, TLSConfig: serving, ErrorLog: log.New(io.Discard, "", 0)}
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = srv.ServeTLS(l, "", "")
	}()
	b.T.Cleanup(func() {
		_ = srv.Shutdown(context.Background())
		<-done
	})
	return s
}

// enough reports whether every wrong answer was given that often.
func (s *storm) enough(times int) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, spoil := range spoils {
		if s.count["kept, then "+spoil] < times {
			return false
		}
	}
	return true
}

func (s *storm) total() (n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, c := range s.count {
		n += c
	}
	return n
}

// TestAStormOfAnswers has a part of the requests refused with every status, and
// another part kept and then answered wrongly, while the agent is killed now and
// then.
func TestAStormOfAnswers(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	s := b.newStorm()
	b.startServer()
	b.startAgent(impatient)
	for i := range 4 {
		if i > 0 {
			b.agent.kill()
			b.ends++
			b.startAgent(impatient)
		}
		b.until("it has stormed for a while", func() bool { return s.enough(i + 1) })
	}
	s.mu.Lock()
	s.rages = false
	// What is kept and then refused as the stream of another agent begins a new
	// stream, where it comes again.
	b.ends += s.count["409"]
	s.mu.Unlock()
	t.Logf("answered: %v", s.count)
	b.settle("storms of 4xx, 5xx and wrong answers", s.total())
}
