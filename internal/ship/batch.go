package ship

import (
	"bytes"
	"fmt"
	"slices"
	"time"

	"github.com/rea-agent/rea/internal/queue"
	"github.com/rea-agent/rea/internal/wire"
)

// What one request may carry: so many bytes as they lie in the queue, and so
// many when decoded, which is what a server takes that nobody configured.
const (
	batchBytes   = 1 << 20
	decodedBytes = wire.BatchBytes
	batchLines   = 1 << 20 // no bound
)

// A batch is a run of lines whose numbers follow on each other, in one encoding.
type batch struct {
	wire.Batch
	records []queue.Record
	count   uint64
	bytes   int
	zstd    bool
	whole   bool // a record that cannot be cut: what is in it is no zstd, though the disk gave it back as it was
}

// A span is a run of numbers, both ends included. The zero span is empty.
type span struct{ first, last uint64 }

// next reads the next batch from the queue; its count is 0 if there is none. It
// consists of whole records, as they lie, unless one must be cut: because a part
// of it is acknowledged, since the server refused more, or since the server does
// not have its dictionary.
func (s *Sender) next() (batch, error) {
	var err error
	if s.records, err = s.o.Queue.Peek(s.records[:0], batchBytes); err != nil || len(s.records) == 0 {
		return batch{}, err
	}
	b := batch{zstd: wire.IsZstd(s.records[0].Data)}
	from := max(s.records[0].First, s.acked+1)
	want, exact := s.want(from)
	next, decoded := from, 0
	for i, r := range s.records {
		last := r.First + uint64(r.Count) - 1
		size := wire.DecodedSize(r.Data)
		if i > 0 && (r.First != next || next > want || last > want && !exact || decoded+size > decodedBytes || wire.IsZstd(r.Data) != b.zstd) {
			break
		}
		if r.First < from || last > want || !s.readable(r) {
			part, err := s.cut.cut(r, span{max(r.First, from), min(last, want)})
			switch {
			case err == nil:
				if !s.readable(r) {
					s.remade.Inc()
				}
				r = part
			case i > 0:
				want = next - 1 // it comes alone, next time
				continue
			default:
				from, b.whole, want = r.First, true, last // and alone
			}
		}
		decoded += size
		next = r.First + uint64(r.Count)
		b.bytes += len(r.Data)
		s.records[i] = r
		b.records = s.records[:i+1]
	}
	b.count = next - from
	stream := s.o.Queue.Stream().String()
	b.Batch = wire.Batch{
		Stream: stream, First: from, Last: next - 1, Schema: wire.Schema, Assigned: max(s.o.Assigned(), next-1), Instance: s.o.Instance,
		ID: fmt.Sprintf("%s-%d-%d", stream[:8], from, next-1),
	}
	return b, nil
}

// readable reports whether the server has what it takes to read r as it lies.
func (s *Sender) readable(r queue.Record) bool {
	id := wire.FrameDictionary(r.Data)
	return id == 0 || slices.Contains(s.dictionaries, id)
}

// want returns the last number that the next batch, which begins with from, is
// to hold, and whether records are to be cut for it.
func (s *Sender) want(from uint64) (last uint64, exact bool) {
	if s.bad.last < from {
		s.bad = span{}
		return from + s.narrow.most - 1, false
	}
	s.bad.first = max(s.bad.first, from)
	return min(s.bad.first+(s.bad.last-s.bad.first)/2, from+s.narrow.most-1), true
}

// widenAfter is how long batches stay small after one was refused for its size
// or took too long. They grow again after that, not at once: a server or a line
// that takes no more would refuse every other batch.
const widenAfter = time.Minute

// narrow is how many lines a batch may have.
type narrow struct {
	most uint64
	when time.Time // it was made smaller
}

// half makes the next batch smaller after one of count lines was too large for
// the server, or took too long: a line of the network may be too slow for so
// many bytes in that time, and would carry the same again and again.
func (n *narrow) half(count uint64) { n.most, n.when = max(1, count/2), time.Now() }

// widen makes batches larger again when that was a while ago.
func (n *narrow) widen() {
	if time.Since(n.when) >= widenAfter {
		n.most = min(2*n.most, batchLines)
	}
}

// A cutter takes single lines out of records.
type cutter struct {
	dec   *wire.Decompressor
	enc   *wire.Compressor
	lines []byte
}

// cut returns the record that holds the lines want of r, encoded as r is but
// without a dictionary.
func (c *cutter) cut(r queue.Record, want span) (queue.Record, error) {
	lines, err := c.decode(r)
	if err != nil {
		return r, err
	}
	start := skip(lines, want.first-r.First)
	end := start + skip(lines[start:], want.last-want.first+1)
	part := queue.Record{First: want.first, Count: uint32(want.last - want.first + 1)}
	if wire.IsZstd(r.Data) {
		part.Data = c.encode(lines[start:end])
	} else {
		part.Data = slices.Clone(lines[start:end])
	}
	return part, nil
}

func (c *cutter) encode(lines []byte) []byte {
	if c.enc == nil {
		c.enc = wire.NewCompressor()
	}
	return c.enc.Append(nil, lines)
}

// decode returns the lines of r, which are borrowed until the next call.
func (c *cutter) decode(r queue.Record) (lines []byte, err error) {
	if !wire.IsZstd(r.Data) {
		return r.Data, nil
	}
	if c.dec == nil {
		c.dec = wire.NewDecompressor()
	}
	if c.lines, err = c.dec.Decode(c.lines[:0], r.Data, maxLines); err != nil {
		return nil, fmt.Errorf("read record %d: %w", r.First, err)
	}
	return c.lines, nil
}

// maxLines is more than the lines of a record can be.
const maxLines = 64 << 20

// skip returns where the line after the first n begins.
func skip(lines []byte, n uint64) (at int) {
	for ; n > 0; n-- {
		i := bytes.IndexByte(lines[at:], '\n') + 1
		if i == 0 {
			return len(lines)
		}
		at += i
	}
	return at
}
