package ingest

import (
	"errors"
	"io"
	"net/http"
	"slices"
	"sync"

	"github.com/rea-agent/rea/internal/wire"
)

// A budget is memory that all requests share.
type budget struct {
	mu   sync.Mutex
	free int // guarded by mu
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
	r.held += n
	return true
}

func (r *reservation) release() {
	r.from.mu.Lock()
	defer r.from.mu.Unlock()
	r.from.free += r.held
	r.held = 0
}

// work is what one request needs, reused by the next one.
type work struct {
	limits  Limits
	reserve reservation
	body    []byte
	lines   []byte
	dec     *wire.Decompressor
	scan    *wire.Scanner
}

func newWork(l Limits) *work {
	lines := wire.DefaultLimits
	lines.Line = l.Line
	return &work{limits: l, dec: wire.NewDecompressor(), scan: wire.NewScanner(lines)}
}

// smallWork is the memory that a work keeps for the next request.
const smallWork = 2 << 20

func (w *work) release(to *sync.Pool) {
	if cap(w.body) > smallWork {
		w.body = nil
	}
	if cap(w.lines) > smallWork {
		w.lines = nil
	}
	to.Put(w)
}

// first is the memory that a request gets before it has proved anything.
const first = 64 << 10

// read reads the body and decompresses it.
func (w *work) read(r *http.Request, b *Batch) error {
	if err := w.readBody(r.Body, int(r.ContentLength)); err != nil {
		return err
	}
	if len(r.Header["Content-Encoding"]) == 0 {
		b.Lines = w.body
		return nil
	}
	b.Frames = w.body
	return w.decode(b)
}

// readBody reads so many bytes. Memory is taken as they come, not as announced.
func (w *work) readBody(r io.Reader, length int) error {
	w.body = w.body[:0]
	for len(w.body) < length {
		next := min(length, max(first, 2*len(w.body)))
		if !w.reserve.grow(next - len(w.body)) {
			return tight()
		}
		start := len(w.body)
		w.body = slices.Grow(w.body, next-start)[:next]
		if _, err := io.ReadFull(r, w.body[start:]); err != nil {
			// Slow or gone; not the fault of what it says.
			return refuse(http.StatusRequestTimeout, "read body: %w", err)
		}
	}
	return nil
}

// decode decompresses the body. It tries with little memory first, and with
// ever more of the budget while that does not suffice: what a frame says of its
// own size is not believed.
func (w *work) decode(b *Batch) error {
	size := 0
	for size < w.limits.Decoded {
		next := min(w.limits.Decoded, max(1<<20, 4*size))
		if !w.reserve.grow(next - size) {
			return tight()
		}
		size = next
		var err error
		w.lines, err = w.dec.Decode(w.lines[:0], b.Frames, size)
		switch {
		case err == nil:
			b.Lines = w.lines
			return nil
		case !errors.Is(err, wire.ErrTooLarge):
			return refuse(http.StatusBadRequest, "body: %w", err)
		}
	}
	return refuse(http.StatusRequestEntityTooLarge, "body has more than %d bytes when decoded", w.limits.Decoded)
}

// tight refuses for want of memory.
func tight() *refusal {
	return overload(0, "too many large batches are on their way")
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
		return &refusal{status: http.StatusUnprocessableEntity, line: bad.Line, err: errors.New(bad.Text())}
	case err != nil:
		return err
	case next <= b.Last:
		return refuse(http.StatusUnprocessableEntity, "the body ends before number %d, the head announces %d", next, b.Last)
	}
	return nil
}

// belongs finds what makes a line none of this batch; next is the number that it
// must have.
func belongs(l *wire.Line, b *Batch, next uint64) *refusal {
	switch {
	case l.Version != wire.Schema:
		return refuse(http.StatusUnprocessableEntity, "v is %d, the head announces %d", l.Version, wire.Schema)
	case string(l.Node) != b.Node:
		return refuse(http.StatusForbidden, "node is %q, but the certificate names %q", l.Node, b.Node)
	case string(l.Stream) != b.Stream:
		return refuse(http.StatusUnprocessableEntity, "stream is %q, the head announces %q", l.Stream, b.Stream)
	case next > b.Last:
		return refuse(http.StatusUnprocessableEntity, "is one more than the head announces")
	case l.Seq != next:
		return refuse(http.StatusUnprocessableEntity, "seq is %d, want %d", l.Seq, next)
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
		return refuse(http.StatusUnprocessableEntity, "the batch has more than %d kinds or hosts", most)
	}
	if string(l.Kind) == "gap" {
		return w.declare(b, l)
	}
	return nil
}

// gapBytes is the memory of a gap beside its texts, and of what was allocated to
// grow their list.
const gapBytes = 512

// declare adds what l declares lost to b.
func (w *work) declare(b *Batch, l *wire.Line) *refusal {
	g, err := wire.ParseGap(l)
	if err != nil {
		return refuse(http.StatusUnprocessableEntity, "%w", err)
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
