package agent

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/rea-agent/rea/internal/collect/eventlog"
	"github.com/rea-agent/rea/internal/config"
	"github.com/rea-agent/rea/internal/event"
	"github.com/rea-agent/rea/internal/evtx"
	"github.com/rea-agent/rea/internal/xpath"
)

// ErrDamaged says that a file was read as far as it can be, and that this is not
// all of it.
var ErrDamaged = errors.New("not all of it could be read")

// replayBatch is how many records are handed over at once.
const replayBatch = 256

// A Selection says which records of a file are wanted.
type Selection struct{ expr *xpath.Expr }

// Select reads an XPath expression that selects records as it does in a rule of
// the event log on Windows. Its error is a config.Fault.
func Select(expr string) (*Selection, error) {
	e, err := xpath.Compile(expr)
	if wrong, ok := errors.AsType[*xpath.Error](err); ok {
		return nil, &config.Fault{What: wrong.Error(), Fix: wrong.Fix}
	}
	return &Selection{e}, err
}

// Replay emits the records of Windows event-log files as the event log would on
// the machine that wrote them, and a gap event for each run of records that cannot
// be read; said tells what is wrong besides. Records that are not selected are
// passed over; nil selects all. It closes the agent. An error that is ErrDamaged
// comes after everything else was read.
func (a *Agent) Replay(ctx context.Context, files []*os.File, only *Selection, said func(file string, problem error)) error {
	return a.through(ctx, func(ctx context.Context) error {
		var damaged []error
		for _, f := range files {
			err := a.replay(ctx, f, only, said)
			if ctx.Err() != nil {
				return ctx.Err() // what was not read is not damaged
			}
			if err != nil && !errors.Is(err, ErrDamaged) {
				return err
			}
			if err != nil {
				damaged = append(damaged, err)
			}
		}
		return errors.Join(damaged...)
	})
}

func (a *Agent) replay(ctx context.Context, f *os.File, only *Selection, said func(string, error)) error {
	size, err := f.Seek(0, io.SeekEnd)
	if err != nil {
		return fmt.Errorf("size of %s: %w", f.Name(), err)
	}
	log, err := evtx.Open(&endable{ctx, f}, size)
	if err != nil {
		return &kind{fmt.Errorf("%s: %w", f.Name(), err), ErrDamaged}
	}
	r := &replay{emit: a.pipeline.Emit, only: only, now: time.Now(), parser: eventlog.Parser{KeepXML: a.o.Config.Collectors.WinEventLogXML}}
	damage := 0
	for record, d := range log.Records() {
		if err := ctx.Err(); err != nil { // what is passed over is not emitted, which would tell
			return err
		}
		if d != nil {
			damage++
			if said(f.Name(), d); !d.Harmless() {
				err = r.missing(ctx, d)
			}
		} else {
			err = r.add(ctx, record.XML)
		}
		if err != nil {
			return err
		}
	}
	if err := r.flush(ctx); err != nil {
		return err
	}
	switch damage {
	case 0:
		return nil
	case 1:
		return &kind{fmt.Errorf("%s: one place is damaged, gap events say which records are gone", f.Name()), ErrDamaged}
	}
	return &kind{fmt.Errorf("%s: %d places are damaged, gap events say which records are gone", f.Name(), damage), ErrDamaged}
}

// An endable file cannot be read any more once ctx has ended. A walk says nothing
// while it goes over chunks that were never used, and a file may have 64 GiB of them.
type endable struct {
	ctx context.Context
	io.ReaderAt
}

func (e *endable) ReadAt(b []byte, at int64) (int, error) {
	if err := e.ctx.Err(); err != nil {
		return 0, err
	}
	return e.ReaderAt.ReadAt(b, at)
}

// A replay gathers the events of one file. What is emitted is used again.
type replay struct {
	emit    func(context.Context, ...event.Event) error
	only    *Selection // nil for all
	now     time.Time
	parser  eventlog.Parser
	outline xpath.Tree
	records [replayBatch]eventlog.Record
	used    int
	events  []event.Event
	channel string         // of the last record
	gap     *event.Missing // the last event, where that is a gap
}

func (r *replay) add(ctx context.Context, xml []byte) error {
	if r.only != nil && !r.selects(xml) {
		return nil
	}
	record := &r.records[r.used]
	r.used++
	r.parser.Parse(xml, record)
	r.channel, r.gap = record.Channel, nil
	r.events = append(r.events, record.Event(r.now))
	if r.used < len(r.records) {
		return nil
	}
	return r.flush(ctx)
}

// selects reports whether the record in xml is wanted, and notes its channel for a
// gap behind it. A record that cannot be asked is wanted: its event says why.
func (r *replay) selects(xml []byte) bool {
	r.gap = nil
	if r.parser.Outline(xml, &r.outline) != nil {
		return true
	}
	if channel := r.outline.Find("Event", "System", "Channel"); string(channel) != r.channel {
		r.channel = string(channel)
	}
	return r.only.expr.Selects(&r.outline, r.now)
}

// missing adds a gap event, or makes the one before longer. Nobody knows what was
// in bytes that are no record: perhaps none was.
func (r *replay) missing(ctx context.Context, d *evtx.Damage) error {
	if r.gap != nil && d.First != 0 && r.gap.LastRecord+1 == d.First && r.gap.Bound == "" && d.Count > 0 {
		r.gap.LastRecord = d.Last
		r.gap.Count += d.Count
		return nil
	}
	m := &event.Missing{Source: string(event.EventLog), Channel: r.channel, Cause: "unreadable", FirstRecord: d.First, LastRecord: d.Last, Count: d.Count}
	switch {
	case d.First == 0:
		m.Count, m.Bound = 1, "unknown"
	case d.Count == 0:
		m.Count, m.Bound = d.Last-d.First+1, "at_most"
	}
	r.gap = m
	r.events = append(r.events, event.Event{Time: r.now, Kind: event.Gap, Body: m})
	if len(r.events) < 2*replayBatch {
		return nil
	}
	return r.flush(ctx)
}

func (r *replay) flush(ctx context.Context) error {
	if len(r.events) == 0 {
		return nil
	}
	err := r.emit(ctx, r.events...)
	clear(r.events)
	r.events, r.used, r.gap = r.events[:0], 0, nil
	return err
}
