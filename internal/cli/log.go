package cli

import (
	"io"
	"log/slog"
)

// Logger returns the log that a program keeps of itself, from that level on: text
// for people, on a terminal, and JSON for everything else.
func Logger(w io.Writer, level slog.Leveler) *slog.Logger {
	o := &slog.HandlerOptions{Level: level}
	if IsTerminal(w) {
		return slog.New(slog.NewTextHandler(w, o))
	}
	return slog.New(slog.NewJSONHandler(w, o))
}

// Level returns the level that a configuration names, which has checked it: debug,
// info, warn or error.
func Level(name string) (l slog.Level) {
	_ = l.UnmarshalText([]byte(name)) // else info
	return l
}
