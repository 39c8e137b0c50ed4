// Package collect runs the sources of events. A Source hands over events until
// it is told to stop; most are a Reader that Poll asks for a reading at every
// interval. The Runner keeps each source on its own: one that hangs, panics or
// fails is recovered, counted, named in an agent event and tried again while
// the others go on.
//
// Each collector is a package below this one with the same shape: the types and
// the shaping in NAME.go, one unexported read for each system in NAME_linux.go
// and NAME_windows.go, and schema.json for the fields that it writes.
package collect

import (
	"context"

	"github.com/rea-agent/rea/internal/event"
)

// Emit hands over events. Its return is the acknowledgement: nil says that the
// keeper has them (or that their loss is accounted for), so a source that can
// replay moves its cursor only then. The events are borrowed until it returns.
type Emit func(ctx context.Context, events ...event.Event) error

// A Reader takes one reading of the system and emits it. It is never called
// twice at once. Its context ends with the source, or when the reading took too
// long; a call that came too late may still be running, and may still emit, after
// that. What could only partly be read is emitted with event.Event.Errors; an
// error is returned where there was nothing to emit, errors.ErrUnsupported on
// systems where the Reader does not work.
type Reader interface {
	Read(ctx context.Context, emit Emit) error
}

// A Source emits events until ctx ends. It tells w how it fares.
type Source interface {
	Run(ctx context.Context, w *Watch) error
}
