//go:build torture && linux

package main

import (
	"bytes"
	"io"
	"math/rand/v2"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/rea-agent/rea/test/rig"
)

// A proxy carries TCP connections to a server, and hurts them.
type proxy struct {
	listener net.Listener
	target   string

	mu    sync.Mutex
	rng   *rand.Rand
	sick  bool
	conns map[net.Conn]bool
	count map[harm]int
	wg    sync.WaitGroup
}

// A harm is what happens to one connection.
type harm string

// The harms. Each comes after a number of bytes that is drawn.
const (
	slow     harm = "delayed"      // each piece of it
	cut      harm = "cut"          // closed in order, in the middle of a request
	reset    harm = "reset"        // RST
	halfOpen harm = "half-open"    // the server is gone, the client does not learn of it
	hole     harm = "black hole"   // nothing is carried, from the start
	short    harm = "cut answer"   // closed in the middle of an answer
	deaf     harm = "no answer"    // what the server says is swallowed
	late     harm = "late in pair" // up at once, down after a pause
	garbled  harm = "garbled"      // a byte of the answer is another
	swapped  harm = "swapped"      // two pieces of the answer change places
)

var harms = []harm{slow, cut, reset, halfOpen, hole, short, deaf, late, garbled, swapped}

func newProxy(t *testing.T, target string, rng *rand.Rand) *proxy {
	t.Helper()
	l, err := net.Listen("tcp", rig.FreeAddress(t))
	if err != nil {
		t.Fatal(err)
	}
	p := &proxy{listener: l, target: target, rng: rand.New(rand.NewPCG(rng.Uint64(), 2)), sick: true, conns: map[net.Conn]bool{}, count: map[harm]int{}}
	p.wg.Go(p.accept)
	t.Cleanup(func() {
		l.Close()
		p.hangUp()
		p.wg.Wait()
	})
	return p
}

func (p *proxy) accept() {
	for {
		c, err := p.listener.Accept()
		if err != nil {
			return
		}
		p.wg.Go(func() { p.carry(c) })
	}
}

// heal ends every connection, and harms none from now on.
func (p *proxy) heal() {
	p.mu.Lock()
	p.sick = false
	p.mu.Unlock()
	p.hangUp()
}

func (p *proxy) hangUp() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for c := range p.conns {
		c.Close()
	}
}

// draw returns what happens to the next connection, after how many bytes, and
// when it is cut in any case; 0 is never.
func (p *proxy) draw() (h harm, after int64, life time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.sick {
		return "", 0, 0
	}
	life = time.Second + time.Duration(p.rng.Int64N(int64(time.Second)))
	if p.rng.IntN(8) == 0 {
		return "", 0, life
	}
	h = harms[p.rng.IntN(len(harms))]
	p.count[h]++
	return h, p.rng.Int64N(1 << (4 + p.rng.IntN(12))), life
}

func (p *proxy) track(c net.Conn) (forget func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.conns[c] = true
	return func() {
		c.Close()
		p.mu.Lock()
		defer p.mu.Unlock()
		delete(p.conns, c)
	}
}

func (p *proxy) carry(client net.Conn) {
	defer p.track(client)()
	h, after, life := p.draw()
	if life > 0 {
		defer time.AfterFunc(life, func() { client.Close() }).Stop()
	}
	if h == hole {
		_, _ = io.Copy(io.Discard, client)
		return
	}
	server, err := net.Dial("tcp", p.target)
	if err != nil {
		return
	}
	defer p.track(server)()
	var up, down io.Reader = client, server
	switch h {
	case slow:
		up, down = delayed{client, 3 * time.Millisecond}, delayed{server, 3 * time.Millisecond}
	case late:
		down = delayed{server, 150 * time.Millisecond}
	case cut, reset, halfOpen:
		up = io.LimitReader(client, after)
	case garbled:
		down = &flipped{server, after}
	case swapped:
		down = &reversed{Reader: server, left: after}
	case short, deaf:
		down = io.LimitReader(server, after)
	}
	var both sync.WaitGroup
	both.Go(func() {
		_, _ = io.Copy(server, up)
		p.endUp(h, client, server)
	})
	both.Go(func() {
		_, _ = io.Copy(client, down)
		if h == deaf {
			_, _ = io.Copy(io.Discard, server)
		}
		if h != halfOpen {
			client.Close()
		}
		server.Close()
	})
	both.Wait()
}

// endUp ends the way to the server as the harm wants it.
func (p *proxy) endUp(h harm, client, server net.Conn) {
	switch h {
	case halfOpen:
		server.Close()
		_, _ = io.Copy(io.Discard, client) // until the client gives up
	case reset:
		for _, c := range []net.Conn{client, server} {
			_ = c.(*net.TCPConn).SetLinger(0)
		}
	}
	client.Close()
	server.Close()
}

// delayed is a reader that takes its time.
type delayed struct {
	io.Reader
	d time.Duration
}

func (r delayed) Read(b []byte) (int, error) {
	n, err := r.Reader.Read(b)
	time.Sleep(r.d)
	return n, err
}

// flipped is a reader of which one byte is another.
type flipped struct {
	io.Reader
	left int64 // bytes before that one
}

func (r *flipped) Read(b []byte) (int, error) {
	n, err := r.Reader.Read(b)
	if r.left >= 0 && r.left < int64(n) {
		b[r.left] ^= 0x10
	}
	r.left -= int64(n)
	return n, err
}

// reversed is a reader that gives the halves of one piece in the wrong order.
type reversed struct {
	io.Reader
	left int64 // bytes before that piece
	done bool
}

func (r *reversed) Read(b []byte) (int, error) {
	n, err := r.Reader.Read(b)
	if r.left -= int64(n); r.left < 0 && !r.done {
		r.done = true
		half := bytes.Clone(b[:n/2])
		copy(b, b[n/2:n])
		copy(b[n-len(half):n], half)
	}
	return n, err
}
