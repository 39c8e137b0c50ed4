package wire

import (
	"encoding/json"
	"errors"
	"fmt"
	"time"
)

// A Gap is what a line of kind gap declares: events that are lost. First and
// Last are numbers of Stream, which may be another one than that of the line;
// all three are zero where the lost events never had numbers.
type Gap struct {
	Seq          uint64 // of the line that declares
	Source       string // whose events are lost; empty where it is not known
	Cause        string
	Count        uint64 // how many events; of numbered ones it is First to Last that counts
	Stream       string
	First, Last  uint64
	Since, Until time.Time // zero where the line does not say
}

// The longest texts of a Gap.
const (
	maxCause  = 64
	maxSource = 1024
)

// gapBody is the body of a gap event. A pointer tells what is absent from what
// is zero.
type gapBody struct {
	Source string    `json:"source"`
	Cause  string    `json:"cause"`
	Count  uint64    `json:"count"`
	Stream *string   `json:"stream"`
	First  *uint64   `json:"first"`
	Last   *uint64   `json:"last"`
	Since  time.Time `json:"since"`
	Until  time.Time `json:"until"`
}

// ParseGap reads the body of a line of kind gap. What it returns can be counted
// with: 1 ≤ First ≤ Last ≤ MaxSeq where there are numbers, and Count is at least
// 1 and at most MaxSeq. Members that are not known are let through.
func ParseGap(l *Line) (Gap, error) {
	var b gapBody
	if err := json.Unmarshal(l.Body, &b); err != nil {
		return Gap{}, fmt.Errorf("gap: %w", err)
	}
	if err := b.check(); err != nil {
		return Gap{}, fmt.Errorf("gap: %w", err)
	}
	g := Gap{Seq: l.Seq, Source: b.Source, Cause: b.Cause, Count: b.Count, Since: b.Since, Until: b.Until}
	if b.First != nil {
		g.Stream, g.First, g.Last = *b.Stream, *b.First, *b.Last
	}
	return g, nil
}

func (b *gapBody) check() error {
	switch {
	case !isCause(b.Cause):
		return fmt.Errorf("cause: want 1 to %d of a-z and _", maxCause)
	case len(b.Source) > maxSource:
		return fmt.Errorf("source: is longer than %d bytes", maxSource)
	case b.Count < 1 || b.Count > MaxSeq:
		return fmt.Errorf("count is %d, want 1 to %d", b.Count, uint64(MaxSeq))
	case b.Stream == nil && b.First == nil && b.Last == nil:
		return nil
	case b.Stream == nil || b.First == nil || b.Last == nil:
		return errors.New("stream, first and last belong together")
	case !IsStream(*b.Stream):
		return fmt.Errorf("stream: want %s", wantID)
	case *b.First < 1 || *b.Last > MaxSeq || *b.First > *b.Last:
		return fmt.Errorf("first is %d and last is %d, want 1 ≤ first ≤ last ≤ %d", *b.First, *b.Last, uint64(MaxSeq))
	}
	return nil
}

func isCause(s string) bool {
	for i := range len(s) {
		if c := s[i]; (c < 'a' || c > 'z') && c != '_' {
			return false
		}
	}
	return s != "" && len(s) <= maxCause
}
