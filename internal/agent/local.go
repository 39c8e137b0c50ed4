package agent

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/rea-agent/rea/internal/pipeline"
	"github.com/rea-agent/rea/internal/sink/file"
	"github.com/rea-agent/rea/internal/sink/stdout"
	"github.com/rea-agent/rea/internal/status"
	"github.com/rea-agent/rea/internal/trouble"
)

// A local is where events are written on this machine, and how that fares. It
// is vital where nothing is sent: what it does not take is lost, and when its
// reader has gone the agent has no purpose.
type local struct {
	name  string
	sink  pipeline.Sink
	vital bool
	end   func(error) // ends the agent

	mu    sync.Mutex
	state status.Part // guarded by mu
}

// openLocal opens stdout or the file. Where nothing is sent it is the keeper,
// otherwise a tee.
func (a *Agent) openLocal(out *output) error {
	c := &a.o.Config.Logging
	l := &local{name: c.Mode, vital: !a.o.Config.Networking.Enabled, end: func(err error) { a.end(err) }}
	l.state.State = status.OK
	switch c.Mode {
	case "none":
		return nil
	case "file":
		f, err := file.Open(file.Options{
			Path: c.FilePath, RotateBytes: c.RotateBytes, RotateEvery: c.RotateInterval, Keep: c.RotateKeep, Gzip: c.Compression == "gzip",
			Trouble: a.fileTrouble(),
		})
		if err != nil {
			return &kind{err, ErrOutput}
		}
		l.sink = f
	default:
		l.sink = stdout.New(a.o.Stdout, 0)
	}
	out.local = l
	if !l.vital {
		out.tees = []pipeline.Tee{{Name: c.Mode, Sink: l}}
	}
	return nil
}

// fileTrouble says and counts what goes wrong beside the lines themselves.
func (a *Agent) fileTrouble() func(error) {
	var t trouble.Trouble
	count := a.metrics.Counter("rea_file_errors_total", "Rotations, syncs, compressions and deletions of the events file that went wrong; no line was lost by them.")
	return func(err error) {
		count.Inc()
		if t.Failed(err.Error()) {
			a.o.Log.Warn("trouble with the events file; no line is lost", "error", err.Error())
		}
	}
}

// Write writes n lines.
func (l *local) Write(lines []byte, n int) error {
	err := l.sink.Write(lines, n)
	l.note(err)
	switch {
	case errors.Is(err, stdout.ErrStuck):
		return &stuck{err}
	case l.vital && errors.Is(err, stdout.ErrClosed):
		l.end(&kind{err, ErrOutput})
		return fmt.Errorf("%w: %w", context.Canceled, err) // said once, by whoever ran the agent
	}
	return err
}

// Close closes the sink.
func (l *local) Close() error { return l.sink.Close() }

func (l *local) note(err error) {
	now := time.Now()
	l.mu.Lock()
	defer l.mu.Unlock()
	if err == nil {
		l.state.State, l.state.LastSuccess, l.state.Failures = status.OK, now, 0
		return
	}
	l.state.State, l.state.LastError, l.state.LastErrorAt = status.Failing, err.Error(), now
	l.state.Failures++
}

// report returns how writing fares.
func (l *local) report() status.Part {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.state
}

// stuck is a loss because nobody reads standard output.
type stuck struct{ error }

func (*stuck) Cause() string { return "sink_stuck" }
