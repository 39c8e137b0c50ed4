package pipeline

import (
	"log/slog"
	"sync"

	"github.com/rea-agent/rea/internal/metric"
	"github.com/rea-agent/rea/internal/trouble"
)

// A tee writes copies of lines to a sink and counts those that it lost. Lanes
// share it, so it has a lock of its own.
type tee struct {
	Tee
	log              *slog.Logger
	written, dropped *metric.Counter
	trouble          trouble.Trouble

	mu sync.Mutex // one write at a time
}

func newTees(o Options) []*tee {
	var tees []*tee
	for _, t := range o.Tees {
		tees = append(tees, &tee{
			Tee:     t,
			log:     o.Log,
			written: o.Set.Counter("rea_sink_events_total", "Events that a sink wrote.", "sink", t.Name),
			dropped: o.Set.Counter("rea_sink_dropped_events_total", "Copies of events that a sink could not write; the events themselves are kept.", "sink", t.Name),
		})
	}
	return tees
}

func (t *tee) write(lines []byte, n int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if err := t.Sink.Write(lines, n); err != nil {
		t.dropped.Add(uint64(n))
		if t.trouble.Failed(err.Error()) {
			t.log.Error("sink loses its copies of events; the events themselves are kept", "sink", t.Name, "error", err.Error(), "lost", t.dropped.Value())
		}
		return
	}
	t.written.Add(uint64(n))
	if failures, lasted := t.trouble.Worked(); failures > 0 {
		t.log.Info("sink works again", "sink", t.Name, "after", lasted.String(), "lost", t.dropped.Value())
	}
}
