package cli

import (
	"io"
	"log/slog"
)

// Logger returns the log that a program keeps of itself: text for people, on a
// terminal, and JSON for everything else. level is debug, info, warn or error.
func Logger(w io.Writer, level string) *slog.Logger {
	o := &slog.HandlerOptions{}
	var l slog.Level
	if l.UnmarshalText([]byte(level)) == nil { // else info; the configuration has checked it
		o.Level = l
	}
	if IsTerminal(w) {
		return slog.New(slog.NewTextHandler(w, o))
	}
	return slog.New(slog.NewJSONHandler(w, o))
}
