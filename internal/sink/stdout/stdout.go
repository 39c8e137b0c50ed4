// Package stdout writes lines to standard output.
//
// Whoever reads at the other end of a pipe may stop reading without closing it.
// That must not stop collection for ever, and a write that hangs in the kernel
// cannot be called off; so one goroutine does the writing, and Write waits for
// it only so long. It then returns ErrStuck, and every Write after it does so at
// once, until the write that hangs has come back.
//
// Lines are handed to the system whole and in order. What was handed over when
// the wait ended (one piece: at most 64 KiB, or one longer line) was counted as
// lost by the caller but is finished if the reader wakes: a line counted as kept
// is never lost, and none is ever torn. After an error in the middle of a line
// (standard output is a file on a full disk) the rest of that line goes first in
// the next write.
package stdout

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"time"
)

// Patience is how long to wait for a reader, unless New is told otherwise.
const Patience = 5 * time.Second

// ErrClosed says that the reader has gone for good. On Unix a program gets it
// only if it handles or ignores SIGPIPE (see package os/signal).
var ErrClosed = errors.New("the reader of standard output has gone")

// ErrStuck says that the reader reads nothing, so that lines were dropped.
var ErrStuck = errors.New("the reader of standard output is stuck: lines are dropped")

var errDone = errors.New("write to standard output: the sink is closed")

const pieceBytes = 64 << 10

// A Sink writes lines to a file that it does not own. Its methods are called by
// one goroutine at a time.
type Sink struct {
	patience time.Duration
	timer    *time.Timer

	piece   []byte      // belongs to the writer goroutine while pending
	pending bool        // a piece was handed over and is not answered
	work    chan []byte // pieces, to the writer goroutine
	done    chan error  // what became of each

	closed bool
}

// New returns a Sink that writes to f, which stays open when the Sink is closed,
// and waits at most patience (0 for Patience) for a reader.
func New(f *os.File, patience time.Duration) *Sink { return newSink(f, patience) }

func newSink(w io.Writer, patience time.Duration) *Sink {
	if patience <= 0 {
		patience = Patience
	}
	s := &Sink{
		patience: patience,
		timer:    time.NewTimer(patience),
		piece:    make([]byte, 0, pieceBytes),
		work:     make(chan []byte),
		done:     make(chan error, 1), // the last answer may find nobody waiting
	}
	s.timer.Stop()
	go s.writer(w)
	return s
}

// Write writes n whole lines. An error says that they were dropped: ErrClosed,
// ErrStuck, or what the system said.
func (s *Sink) Write(lines []byte, n int) error {
	if s.closed {
		return errDone
	}
	s.timer.Reset(s.patience)
	defer s.timer.Stop()
	for len(lines) > 0 {
		if !s.settled() {
			return ErrStuck
		}
		size := fit(lines, pieceBytes)
		s.piece = append(s.piece[:0], lines[:size]...)
		s.work <- s.piece // the writer waits here: nothing is pending
		s.pending = true
		select {
		case err := <-s.done:
			s.answered()
			if err != nil {
				return err
			}
		case <-s.timer.C:
			return ErrStuck
		}
		lines = lines[size:]
	}
	return nil
}

// settled reports whether the writer goroutine is free. What it says about lines
// that were counted as dropped long ago does not matter any more.
func (s *Sink) settled() bool {
	if s.pending {
		select {
		case <-s.done: //nolint:errcheck // of lines that were counted as dropped
			s.answered()
		default:
			return false
		}
	}
	return true
}

func (s *Sink) answered() {
	s.pending = false
	if cap(s.piece) > pieceBytes { // one very long line
		s.piece = make([]byte, 0, pieceBytes)
	}
}

// Close ends the writer goroutine and waits for it, but no longer than for a
// Write: one that hangs in the kernel ends only with its write or the process.
func (s *Sink) Close() error {
	if s.closed {
		return nil
	}
	s.closed = true
	close(s.work)
	s.timer.Reset(s.patience)
	defer s.timer.Stop()
	for {
		select {
		case _, open := <-s.done:
			if !open {
				return nil
			}
		case <-s.timer.C:
			return fmt.Errorf("close standard output: %w", ErrStuck)
		}
	}
}

// writer writes pieces until there are no more to come.
func (s *Sink) writer(w io.Writer) {
	defer close(s.done)
	var rest []byte // of a line that an error tore
	for piece := range s.work {
		if len(rest) > 0 {
			n, err := w.Write(rest)
			if rest = rest[n:]; err != nil {
				s.done <- explain(err)
				continue
			}
		}
		n, err := w.Write(piece)
		if err != nil {
			rest = append(rest[:0], torn(piece, n)...)
			err = explain(err)
		}
		s.done <- err
	}
}

// torn returns what is missing of the line in which a write of lines ended after
// n bytes.
func torn(lines []byte, n int) []byte {
	if n == 0 || lines[n-1] == '\n' {
		return nil
	}
	return lines[n : n+bytes.IndexByte(lines[n:], '\n')+1]
}

// fit returns the length of the whole lines at the start that fit into room, or
// that of the first line where none fits.
func fit(lines []byte, room int) int {
	if len(lines) <= room {
		return len(lines)
	}
	if i := bytes.LastIndexByte(lines[:room], '\n'); i >= 0 {
		return i + 1
	}
	if i := bytes.IndexByte(lines, '\n'); i >= 0 {
		return i + 1
	}
	return len(lines)
}

func explain(err error) error {
	if isGone(err) {
		return fmt.Errorf("%w: %w", ErrClosed, err)
	}
	return fmt.Errorf("write to standard output: %w", err)
}
