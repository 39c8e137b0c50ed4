package ship

import (
	"bytes"
	"context"
	"fmt"
	"time"
)

// A Refused is a run of lines, nearly always one, that the server does not take
// for what they say.
type Refused struct {
	Status int    // of the answer
	Reason string // the server's words
	Cause  string // rejected, too_large
	Stream string
	First  uint64
	Count  uint64
	Data   []byte // the lines; as they lie in the queue where they cannot be decoded
}

// A line is given up at once if the server took another one a moment ago, for
// then it is the line that is at fault. A server that takes nothing may be what
// is at fault: it is asked several times, with long pauses.
const (
	trust     = time.Minute
	maxAlone  = 3
	wholeSlow = "and nothing else is accepted either"
)

// close comes closer to the line at fault after b was refused for what it says.
// The half of the smallest run that is known to be refused is tried next; so of
// n lines the one is found in log2(n)+2 tries. What is before it is delivered by
// then.
func (s *Sender) close(ctx context.Context, b batch, f *failure) time.Duration {
	if b.count > 1 && !b.whole {
		s.bad = span{b.First, b.Last}
		f.quick = true
		return s.failed(ctx, b, f)
	}
	if f.reason == "conflict" {
		return s.takenOver(ctx, b, f)
	}
	s.alone++
	if time.Since(s.State().LastSuccess) > trust && s.alone < maxAlone {
		f.slow, f.err = true, fmt.Errorf("%w; %s", f.err, wholeSlow)
		return s.failed(ctx, b, f)
	}
	return s.bury(ctx, b, f)
}

// bury gives the line b up: it is kept for people and declared missing, and only
// then forgotten here.
func (s *Sender) bury(ctx context.Context, b batch, f *failure) time.Duration {
	r := Refused{Status: f.status, Reason: f.err.Error(), Cause: f.reason, Stream: b.Stream, First: b.First, Count: b.count, Data: b.records[0].Data}
	if lines, err := s.cut.decode(b.records[0]); err == nil {
		r.Data = lines
	}
	err := s.o.Account.Bury(ctx, r)
	if err == nil {
		err = s.o.Queue.Ack(b.Last)
	}
	if err != nil {
		return s.failed(ctx, b, &failure{reason: "queue", err: fmt.Errorf("give up event %d, which the server refuses: %w", b.First, err)})
	}
	s.errors(f.reason).Inc()
	s.acked, s.alone, s.bad = b.Last, 0, span{}
	if isGap(r.Data) {
		// The gap event that tells of it may be refused as well, and so on.
		return slowProbe/2 + jitter(slowProbe)
	}
	return 0
}

// takenOver begins a new stream: the server keeps something else under the
// number of line b, or another agent uses the stream.
func (s *Sender) takenOver(ctx context.Context, b batch, f *failure) time.Duration {
	if s.renewed { // it cannot be: the server does not know this stream from anybody
		f.slow = true
		return s.failed(ctx, b, f)
	}
	return s.renew(ctx, b, f.err.Error())
}

// renew goes on in a new stream.
func (s *Sender) renew(ctx context.Context, b batch, why string) time.Duration {
	s.o.Log.Warn("a new stream begins; what is not delivered goes along", "lane", s.o.Lane, "stream", s.o.Queue.Stream().String(), "because", why)
	q, err := s.o.Account.Renew(ctx)
	if q != nil {
		s.o.Queue = q
	}
	if err != nil {
		return s.failed(ctx, b, &failure{reason: "queue", err: fmt.Errorf("begin a new stream: %w", err)})
	}
	s.renewals.Inc()
	s.resumed, s.behind, s.renewed = false, false, true
	s.began, s.acked, s.confirmed, s.bad, s.alone = 1, s.o.Queue.Acked(), 0, span{}, 0
	return 0
}

// isGap reports whether a line is a gap event.
func isGap(line []byte) bool { return bytes.Contains(line, []byte(`,"kind":"gap",`)) }
