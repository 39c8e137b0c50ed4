package ingest

import (
	"errors"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/rea-agent/rea/internal/wire"
)

// A budget is memory that all requests share.
type budget struct {
	mu   sync.Mutex
	free int // guarded by mu
	held int // guarded by mu
}

// used returns how much is reserved.
func (b *budget) used() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.held
}

// hold begins a reservation of nothing yet.
func (b *budget) hold() reservation { return reservation{from: b} }

// A reservation is what one request has of a budget.
type reservation struct {
	from *budget
	held int
}

// grow reserves n bytes more, or reports that there are not so many.
func (r *reservation) grow(n int) bool {
	r.from.mu.Lock()
	defer r.from.mu.Unlock()
	if n > r.from.free {
		return false
	}
	r.from.free -= n
	r.from.held += n
	r.held += n
	return true
}

func (r *reservation) release() {
	r.from.mu.Lock()
	defer r.from.mu.Unlock()
	r.from.free += r.held
	r.from.held -= r.held
	r.held = 0
}

// work is what one request needs to be decoded and checked, reused by the next
// one. Nothing of it is taken before the body is there, so that those who are
// slow with theirs hold no decoder.
type work struct {
	limits  Limits
	reserve *reservation
	decoded int // bytes that came out, or at least, where there were too many
	gaps    int // bytes of gaps that were read
	lines   []byte
	dec     *wire.Decompressor
	scan    *wire.Scanner
}

func newWork(l Limits) *work {
	return &work{
		limits: l, dec: wire.NewWindowDecompressor(l.Window),
		scan: wire.NewScanner(wire.Limits{Line: l.Line, Depth: l.Depth, Members: l.Members}),
	}
}

// smallWork is the memory that a work keeps for the next request: that of a
// server which nobody configured, so that it makes no garbage.
const smallWork = wire.BatchBytes + 1

func (w *work) release(to *sync.Pool) {
	if cap(w.lines) > smallWork {
		w.lines = nil
	}
	w.reserve = nil
	to.Put(w)
}

// first is the memory that a body gets before any of it has come, and earnest what
// must have come before it gets all that it announces.
const (
	first   = 4 << 10
	earnest = 256 << 10
)

// grace is how long a body may take whatever its rate.
const grace = 5 * time.Second

// readBody reads the body. Memory is taken as it comes, not as announced, and it
// must come at a rate: the deadline moves on with what has come.
func (l *Limits) readBody(from *bodies, w http.ResponseWriter, r *http.Request, reserve *reservation) ([]byte, error) {
	var body []byte
	p := l.patience(w)
	length := int(r.ContentLength)
	for len(body) < length {
		size := min(length, max(first, 4*len(body)))
		if len(body) >= earnest {
			size = length
		}
		if !reserve.grow(size - len(body)) {
			return nil, tight()
		}
		have := len(body)
		body = append(from.buffer(size), body...)[:size]
		for have < size {
			p.extend(have)
			n, err := r.Body.Read(body[have:])
			have += n
			if err != nil && have < length {
				// Slow or gone; not the fault of what it says.
				return nil, refuse(http.StatusRequestTimeout, "body_slow", "read body: %d of %d bytes came: %w", have, length, err)
			}
			if err != nil {
				break
			}
		}
	}
	p.end()
	return body, nil
}

// bodies are buffers for large bodies, between requests.
type bodies struct{ pool sync.Pool } // of *[]byte

// buffer returns an empty one.
func (b *bodies) buffer(size int) []byte {
	if size > earnest {
		if p, ok := b.pool.Get().(*[]byte); ok && cap(*p) >= size {
			return (*p)[:0]
		}
	}
	return make([]byte, 0, size)
}

// keep takes one back.
func (b *bodies) keep(body []byte) {
	if cap(body) > earnest && cap(body) <= smallWork {
		b.pool.Put(&body)
	}
}

// patience is how long a body is waited for.
type patience struct {
	l     *Limits
	conn  *http.ResponseController
	began time.Time
	until time.Time
}

func (l *Limits) patience(w http.ResponseWriter) *patience {
	return &patience{l: l, conn: http.NewResponseController(w), began: time.Now()}
}

// extend allows the next bytes the time that those before have earned. A writer
// that knows no deadlines, as in tests, waits for ever.
func (p *patience) extend(have int) {
	earned := min(p.l.BodyTime, grace+time.Duration(float64(have)/float64(p.l.BodyRate)*float64(time.Second)))
	if until := p.began.Add(earned); until.Sub(p.until) >= time.Second/2 {
		p.until = until
		_ = p.conn.SetReadDeadline(until)
	}
}

// end leaves the connection without a deadline, since all has come: to work on
// it may take longer. Of a body that did not come the deadline stays, or the HTTP
// server would wait for the rest of it.
func (p *patience) end() { _ = p.conn.SetReadDeadline(time.Time{}) }

// read decompresses the body, if it is compressed.
func (w *work) read(r *http.Request, body []byte, b *Batch) error {
	w.decoded, w.gaps = 0, 0
	if len(r.Header["Content-Encoding"]) == 0 {
		b.Lines = body
		return nil
	}
	b.Frames = body
	return w.decode(b)
}

// ratioFrom is what a body may decode to at any ratio: a line that repeats one
// byte a million times is a bad one, but not an attack.
const ratioFrom = wire.MaxLine

// maxParts bounds the frames and blocks of a body. An agent that sends a MiB of the
// smallest records there can be sends fewer, or else splits it.
const maxParts = 50_000

// decode decompresses the body. It tries with little memory first, and with
// ever more of the budget while that does not suffice: what a frame says of its
// own size is not believed.
func (w *work) decode(b *Batch) error {
	if wire.Parts(b.Frames, maxParts) > maxParts {
		return refuse(http.StatusRequestEntityTooLarge, "frames", "body has more than %d zstd frames and blocks", maxParts)
	}
	most, ratio := w.limits.Decoded, max(ratioFrom, w.limits.Ratio*len(b.Frames))
	for w.decoded < min(most, ratio) {
		next := min(most, ratio, max(1<<20, 4*w.decoded))
		if !w.reserve.grow(next - w.decoded) {
			return tight()
		}
		w.decoded = next
		if cap(w.lines) <= next {
			w.lines = make([]byte, 0, next+1) // at once: to grow would cost as much again
		}
		var err error
		w.lines, err = w.dec.Decode(w.lines[:0], b.Frames, next)
		switch {
		case err == nil:
			w.decoded = len(w.lines)
			b.Lines = w.lines
			return nil
		case errors.Is(err, wire.ErrWindow):
			return refuse(http.StatusBadRequest, "window", "body: %w, %d bytes", err, w.limits.Window)
		case !errors.Is(err, wire.ErrTooLarge):
			return refuse(http.StatusBadRequest, "zstd", "body: %w", err)
		}
	}
	if ratio < most {
		return refuse(http.StatusRequestEntityTooLarge, "ratio", "body has more than %d bytes when decoded, which is more than %d for one that came", ratio, w.limits.Ratio)
	}
	return refuse(http.StatusRequestEntityTooLarge, "decoded_bytes", "body has more than %d bytes when decoded", most)
}

// tight refuses for want of memory.
func tight() *refusal {
	return overload("memory", 0, "too many large batches are on their way")
}

// check scans the lines, which must be those that the head announced and of the
// node of the certificate, and notes what they are about.
func (w *work) check(b *Batch) error {
	w.scan.Reset(b.Lines)
	next := b.First
	for w.scan.Scan() {
		l := w.scan.Line()
		no := belongs(l, b, next)
		if no == nil {
			no = w.note(b, l)
		}
		if no != nil {
			if !no.load {
				no.line = w.scan.Count()
			}
			return no
		}
		next++
	}
	var bad *wire.LineError
	switch err := w.scan.Err(); {
	case errors.As(err, &bad):
		return &refusal{status: http.StatusUnprocessableEntity, reason: string(bad.Rule), line: bad.Line, err: errors.New(bad.Text())}
	case err != nil:
		return err
	case next <= b.Last:
		return refuse(http.StatusUnprocessableEntity, "announced", "the body ends before number %d, the head announces %d", next, b.Last)
	}
	return nil
}

// naming is what names the node of a batch, by whether it is unproven.
var naming = map[bool]string{false: "the certificate names", true: "the request names"}

// belongs finds what makes a line none of this batch; next is the number that it
// must have.
func belongs(l *wire.Line, b *Batch, next uint64) *refusal {
	switch {
	case l.Version != wire.Schema:
		return refuse(http.StatusUnprocessableEntity, "numbers", "v is %d, the head announces %d", l.Version, wire.Schema)
	case string(l.Node) != b.Node:
		return refuse(http.StatusForbidden, "node", "node is %q, but %s %q", l.Node, naming[b.Unproven], b.Node)
	case string(l.Stream) != b.Stream:
		return refuse(http.StatusUnprocessableEntity, "numbers", "stream is %q, the head announces %q", l.Stream, b.Stream)
	case next > b.Last:
		return refuse(http.StatusUnprocessableEntity, "announced", "is one more than the head announces")
	case l.Seq != next:
		return refuse(http.StatusUnprocessableEntity, "numbers", "seq is %d, want %d", l.Seq, next)
	}
	return nil
}

// most bounds the kinds and hosts of one batch: an agent has ten and one.
const most = 64

// note adds what l is about to b.
func (w *work) note(b *Batch, l *wire.Line) *refusal {
	if b.Earliest.IsZero() || l.Time.Before(b.Earliest) {
		b.Earliest = l.Time
	}
	if b.Latest.IsZero() || l.Time.After(b.Latest) {
		b.Latest = l.Time
	}
	b.Kinds = include(b.Kinds, l.Kind)
	b.Hosts = include(b.Hosts, l.Host)
	if len(b.Kinds) > most || len(b.Hosts) > most {
		return refuse(http.StatusUnprocessableEntity, "variety", "the batch has more than %d kinds or hosts", most)
	}
	if string(l.Kind) == "gap" {
		return w.declare(b, l)
	}
	return nil
}

// gapBytes is the memory of a gap beside its texts, and of what was allocated to
// grow their list.
const gapBytes = 512

// maxGaps bounds the bytes of all gaps of a batch, which cost more to read than
// other lines do. An agent's record has no more of them.
const maxGaps = wire.RecordBytes

// declare adds what l declares lost to b.
func (w *work) declare(b *Batch, l *wire.Line) *refusal {
	if w.gaps += len(l.Body); w.gaps > maxGaps {
		return refuse(http.StatusRequestEntityTooLarge, "gaps", "the gaps of the batch have more than %d bytes", maxGaps)
	}
	g, err := wire.ParseGap(l)
	if err != nil {
		return refuse(http.StatusUnprocessableEntity, "gap", "%w", err)
	}
	if !w.reserve.grow(gapBytes + len(g.Source) + len(g.Cause)) {
		return tight()
	}
	b.Gaps = append(b.Gaps, g)
	return nil
}

// include adds s to the list, or moves it to its end: the last is the latest.
func include(list []string, s []byte) []string {
	for i, have := range list {
		if have == string(s) {
			if i == len(list)-1 {
				return list
			}
			return append(slices.Delete(list, i, i+1), have)
		}
	}
	return append(list, string(s))
}
