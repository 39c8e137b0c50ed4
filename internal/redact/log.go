package redact

import (
	"context"
	"fmt"
	"log/slog"
)

// Log returns a handler that takes secrets out of what h is given: errors and
// reasons may quote what a source read or what a peer said.
func Log(h slog.Handler) slog.Handler { return &logHandler{h} }

type logHandler struct{ slog.Handler }

func (h *logHandler) Handle(ctx context.Context, r slog.Record) error {
	message, _ := Secrets(r.Message)
	clean := slog.NewRecord(r.Time, r.Level, message, r.PC)
	r.Attrs(func(a slog.Attr) bool {
		clean.AddAttrs(cleanAttr(a))
		return true
	})
	return h.Handler.Handle(ctx, clean)
}

func (h *logHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	clean := make([]slog.Attr, len(attrs))
	for i, a := range attrs {
		clean[i] = cleanAttr(a)
	}
	return &logHandler{h.Handler.WithAttrs(clean)}
}

func (h *logHandler) WithGroup(name string) slog.Handler {
	return &logHandler{h.Handler.WithGroup(name)}
}

func cleanAttr(a slog.Attr) slog.Attr {
	a.Value = a.Value.Resolve()
	text := ""
	switch a.Value.Kind() {
	case slog.KindString:
		text = a.Value.String()
	case slog.KindGroup:
		var members []slog.Attr
		for _, m := range a.Value.Group() {
			members = append(members, cleanAttr(m))
		}
		return slog.Attr{Key: a.Key, Value: slog.GroupValue(members...)}
	case slog.KindAny:
		text = fmt.Sprint(a.Value.Any())
	default:
		return a
	}
	if clean, kinds := Secrets(text); kinds != "" {
		a.Value = slog.StringValue(clean)
	} else if kind, ok := namedSecret(a.Key, text); ok && kind != "" {
		a.Value = slog.StringValue(Mark)
	}
	return a
}
