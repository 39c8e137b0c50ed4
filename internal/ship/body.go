package ship

import (
	"errors"
	"io"
	"sync"

	"github.com/rea-agent/rea/internal/queue"
)

var errReleased = errors.New("request is over")

// A lease is the records of a batch, lent to the bodies of its request. An HTTP
// client may go on reading a body after it returned the answer; the records
// belong to the queue again by then, so release ends the reading first.
type lease struct {
	mu      sync.Mutex
	records []queue.Record // nil after release
}

func (l *lease) release() {
	l.mu.Lock()
	l.records = nil
	l.mu.Unlock()
}

// body returns a reader of the records from the first on.
func (l *lease) body() io.ReadCloser { return &body{lease: l} }

// A body reads the records of a lease one after the other.
type body struct {
	lease *lease
	next  int // the record being read
	off   int // how much of it was read
}

func (b *body) Read(p []byte) (n int, err error) {
	b.lease.mu.Lock()
	defer b.lease.mu.Unlock()
	records := b.lease.records
	if records == nil {
		return 0, errReleased
	}
	for n < len(p) && b.next < len(records) {
		c := copy(p[n:], records[b.next].Data[b.off:])
		n += c
		if b.off += c; b.off == len(records[b.next].Data) {
			b.next, b.off = b.next+1, 0
		}
	}
	if n == 0 && len(p) > 0 {
		return 0, io.EOF
	}
	return n, nil
}

func (b *body) Close() error { return nil }
