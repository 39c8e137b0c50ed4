// Package sinktest is the suite that every sink passes: the lines that it took
// are there afterwards, whole, once, in order and nothing beside them.
package sinktest

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
)

// A Sink is what the pipeline asks of one.
type Sink interface {
	Write(lines []byte, n int) error
	Close() error
}

// An Open makes a new sink and a function that returns all that it wrote, which
// is called once, after Close.
type Open func(t *testing.T) (s Sink, readBack func() []byte)

// Suite runs every test against sinks from open.
func Suite(t *testing.T, open Open) {
	for name, test := range map[string]func(*testing.T, Open){
		"nothing written":              nothing,
		"lines come back in order":     inOrder,
		"many sizes":                   manySizes,
		"line of 1 MiB":                longLine,
		"lines are borrowed":           borrowed,
		"goroutines in turn":           inTurn,
		"close twice":                  closeTwice,
		"write after close":            writeAfterClose,
		"write of nothing after close": writeNothingAfterClose,
	} {
		t.Run(name, func(t *testing.T) { test(t, open) })
	}
}

// Line returns line i, padded to about size bytes, its newline included.
func Line(i, size int) []byte {
	head := fmt.Sprintf(`{"i":%d,"pad":"`, i)
	return fmt.Appendf(nil, "%s%s\"}\n", head, strings.Repeat("x", max(0, size-len(head)-3)))
}

func write(t *testing.T, s Sink, lines []byte, n int) {
	t.Helper()
	if err := s.Write(lines, n); err != nil {
		t.Fatalf("write of %d lines, %d bytes: %v", n, len(lines), err)
	}
}

// finish closes s and compares all that was written with want.
func finish(t *testing.T, s Sink, readBack func() []byte, want []byte) {
	t.Helper()
	if err := s.Close(); err != nil {
		t.Fatalf("close: %v", err)
	}
	got := readBack()
	if bytes.Equal(got, want) {
		return
	}
	i := 0
	for i < min(len(got), len(want)) && got[i] == want[i] {
		i++
	}
	t.Errorf("%d bytes came back of %d, other from byte %d on: %.80q, want %.80q", len(got), len(want), i, got[i:], want[i:])
}

func nothing(t *testing.T, open Open) {
	s, readBack := open(t)
	write(t, s, nil, 0)
	finish(t, s, readBack, nil)
}

func inOrder(t *testing.T, open Open) {
	s, readBack := open(t)
	var want []byte
	for i := range 1000 {
		line := Line(i, 100)
		want = append(want, line...)
		write(t, s, line, 1)
		if i%100 == 0 {
			write(t, s, nil, 0)
		}
	}
	finish(t, s, readBack, want)
}

func manySizes(t *testing.T, open Open) {
	s, readBack := open(t)
	r := rand.New(rand.NewPCG(1, 1))
	var want []byte
	for i := 0; i < 3000; {
		start, n := len(want), 1+r.IntN(60)
		for range n {
			want = append(want, Line(i, r.IntN(1<<r.IntN(14)))...)
			i++
		}
		write(t, s, want[start:], n)
	}
	finish(t, s, readBack, want)
}

func longLine(t *testing.T, open Open) {
	s, readBack := open(t)
	var want []byte
	for i, size := range []int{100, 1 << 20, 100, 1<<20 + 1, 1<<20 - 1, 100} {
		want = append(want, Line(i, size)...)
	}
	write(t, s, want, 6) // all at once …
	line := Line(6, 1<<20)
	write(t, s, line, 1) // … and alone
	finish(t, s, readBack, append(want, line...))
}

func borrowed(t *testing.T, open Open) {
	s, readBack := open(t)
	var want []byte
	buf := make([]byte, 0, 4096)
	for i := range 100 {
		buf = append(buf[:0], Line(i, 2000)...)
		want = append(want, buf...)
		write(t, s, buf, 1)
		clear(buf) // it is the caller's again
	}
	finish(t, s, readBack, want)
}

func inTurn(t *testing.T, open Open) {
	s, readBack := open(t)
	var mu sync.Mutex // the rule: one call at a time, from any goroutine
	var want []byte
	var wg sync.WaitGroup
	for g := range 8 {
		wg.Go(func() {
			for i := range 100 {
				line := Line(g*1000+i, 300)
				mu.Lock()
				if err := s.Write(line, 1); err != nil {
					t.Error(err)
				}
				want = append(want, line...)
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	finish(t, s, readBack, want)
}

func closeTwice(t *testing.T, open Open) {
	s, readBack := open(t)
	line := Line(1, 100)
	write(t, s, line, 1)
	if err := s.Close(); err != nil {
		t.Fatalf("close: %v", err)
	}
	finish(t, s, readBack, line)
}

func writeAfterClose(t *testing.T, open Open) {
	s, readBack := open(t)
	line := Line(1, 100)
	write(t, s, line, 1)
	if err := s.Close(); err != nil {
		t.Fatalf("close: %v", err)
	}
	if err := s.Write(Line(2, 100), 1); err == nil {
		t.Error("a closed sink took lines")
	}
	finish(t, s, readBack, line)
}

func writeNothingAfterClose(t *testing.T, open Open) {
	s, readBack := open(t)
	if err := s.Close(); err != nil {
		t.Fatalf("close: %v", err)
	}
	if err := s.Write(nil, 0); err == nil {
		t.Error("a closed sink took an empty write")
	}
	finish(t, s, readBack, nil)
}
