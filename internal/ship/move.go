package ship

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strconv"

	"github.com/rea-agent/rea/internal/queue"
	"github.com/rea-agent/rea/internal/wire"
)

// Moved tells what became of the events that Move found.
type Moved struct {
	Events uint64 // that lie in the new queue
	Torn   uint64 // that could not be read, though the disk gave back what was written
}

// Move appends to fresh what lies in old and is not acknowledged: as events of
// the stream of fresh, numbered from its next number on, and of node, if that is
// not empty. It is for queue.Renew.
func Move(ctx context.Context, old, fresh *queue.Queue, node string) (m Moved, err error) {
	w := mover{ctx: ctx, fresh: fresh, from: old.Stream().String(), to: fresh.Stream().String(), node: node}
	acked := old.Acked()
	err = old.Each(func(r queue.Record) error {
		lines, err := w.cut.decode(r)
		if err == nil {
			if r.First <= acked {
				lines = lines[skip(lines, acked+1-r.First):]
			}
			lines, err = w.readdress(lines)
		}
		if err != nil {
			m.Torn += uint64(r.Count)
			return nil //nolint:nilerr // counted, and declared by who asked
		}
		n := uint64(bytes.Count(lines, newline))
		if err := w.append(lines, wire.IsZstd(r.Data)); err != nil {
			return fmt.Errorf("move record %d: %w", r.First, err)
		}
		m.Events += n
		return nil
	})
	return m, err
}

var newline = []byte{'\n'}

// A mover moves the lines of one record after the other.
type mover struct {
	ctx      context.Context //nolint:containedctx // of Move
	fresh    *queue.Queue
	from, to string // streams
	node     string
	cut      cutter
	enc      *wire.Compressor
	out      []byte
}

// readdress returns lines with their new stream, numbers and node. It relies on
// how package event writes the envelope: a quote inside a text is escaped, so
// these members are found by their names, and the first is the envelope's.
func (w *mover) readdress(lines []byte) ([]byte, error) {
	stream := []byte(`,"stream":"` + w.from + `","seq":`)
	node := []byte(`,"node":"`)
	w.out = w.out[:0]
	next := w.fresh.Next()
	for line := range bytes.Lines(lines) {
		if w.node != "" {
			before, after, ok := bytes.Cut(line, node)
			_, rest, closed := bytes.Cut(after, []byte{'"'})
			if !ok || !closed {
				return nil, errors.New("a line has no node")
			}
			w.out = append(append(w.out, before...), node...)
			w.out = append(append(w.out, w.node...), '"')
			line = rest
		}
		before, after, ok := bytes.Cut(line, stream)
		digits := bytes.IndexByte(after, ',')
		if !ok || digits < 1 {
			return nil, errors.New("a line has no number of the stream")
		}
		w.out = append(append(w.out, before...), `,"stream":"`...)
		w.out = append(append(w.out, w.to...), `","seq":`...)
		w.out = strconv.AppendUint(w.out, next, 10)
		w.out = append(w.out, after[digits:]...)
		next++
	}
	return w.out, nil
}

// encode makes frames that are as small as those that a Writer makes: a full
// queue is to fit.
func (w *mover) encode(lines []byte) []byte {
	if w.enc == nil {
		w.enc = wire.NewDictionaryCompressor()
	}
	return w.enc.Append(nil, lines)
}

// append appends lines as one record, or as two where that is too large: a node
// may have a longer name now.
func (w *mover) append(lines []byte, compress bool) error {
	count := bytes.Count(lines, newline)
	if count == 0 {
		return nil
	}
	data := lines
	if compress {
		data = w.encode(lines)
	}
	err := w.fresh.Append(w.ctx, queue.Record{First: w.fresh.Next(), Count: uint32(count), Data: data})
	if !errors.Is(err, queue.ErrTooLarge) || count == 1 {
		return err
	}
	half := skip(lines, uint64(count/2))
	return errors.Join(w.append(lines[:half], compress), w.append(lines[half:], compress))
}
