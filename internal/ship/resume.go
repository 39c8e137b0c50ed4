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
	a, f := s.ask(req, stream)
	if f != nil {
		f.err = fmt.Errorf("ask where the stream stands: %w", f.err)
		return f
	}
	s.compare(ctx, a)
	s.resumed, s.met, s.spoke = true, true, time.Now()
	s.reached()
	return nil
}

// compare draws the conclusions from where the server stands.
func (s *Sender) compare(ctx context.Context, a wire.Answer) {
	if a.Last < s.confirmed {
		s.o.Log.Error("the server keeps less than it acknowledged: it has lost events, which are not here any more", "lane", s.o.Lane,
			"stream", s.o.Queue.Stream().String(), "acknowledged", s.confirmed, "kept", a.Last)
		s.confirmed = a.Last // said
	}
	switch {
	case a.Last >= s.o.Queue.Next(), !s.met && a.Last >= s.began:
		s.behind = true
	case !s.met && a.Assigned >= s.began:
		s.crashed = a.Assigned - s.began + 1
	}
	if s.crashed == 0 {
		return
	}
	// Where it cannot be declared now, delivery goes on: it may be what makes room.
	if err := s.o.Account.Crashed(ctx, s.crashed); err != nil {
		s.o.Log.Warn("events that a crash took are not declared yet; it is tried again", "lane", s.o.Lane, "events", s.crashed, "error", err.Error())
		return
	}
	s.crashed = 0
}
