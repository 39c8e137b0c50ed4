package ship

import (
	"context"
	"fmt"
	"time"

	"github.com/rea-agent/rea/internal/wire"
)

// resume tells the server how far the stream has come, and learns how much of it
// the server keeps. It is the heartbeat, too.
func (s *Sender) resume(ctx context.Context) *failure {
	req, err := s.request(ctx, wire.ResumePath, nil)
	if err != nil {
		return &failure{reason: "server", err: err}
	}
	stream := s.o.Queue.Stream().String()
	wire.Resume{Stream: stream, Assigned: s.o.Assigned(), Instance: s.o.Instance}.SetHeader(req.Header)
	a, f := s.ask(req)
	if f != nil {
		f.err = fmt.Errorf("ask where the stream stands: %w", f.err)
		return f
	}
	if f := s.compare(ctx, a); f != nil {
		return f
	}
	s.resumed, s.met, s.spoke = true, true, time.Now()
	s.reached()
	return nil
}

// compare draws the conclusions from where the server stands.
func (s *Sender) compare(ctx context.Context, a wire.Answer) *failure {
	if a.Last < s.confirmed {
		s.o.Log.Error("the server keeps less than it acknowledged: it has lost events, which are not here any more", "lane", s.o.Lane,
			"stream", s.o.Queue.Stream().String(), "acknowledged", s.confirmed, "kept", a.Last)
		s.confirmed = a.Last // said
	}
	switch {
	case a.Last >= s.o.Queue.Next(), !s.met && a.Last >= s.began:
		s.behind = true
	case !s.met && a.Assigned >= s.began:
		lost := a.Assigned - s.began + 1
		if err := s.o.Account.Crashed(ctx, lost); err != nil {
			return &failure{reason: "queue", err: fmt.Errorf("declare %d events that a crash took: %w", lost, err)}
		}
	}
	return nil
}
