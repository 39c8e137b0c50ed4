package cli

import (
	"io"
	"os"
)

// IsTerminal reports whether what is written to w is shown to somebody.
func IsTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	if !ok {
		return false
	}
	_, ok = terminal(f)
	return ok
}

// Width returns how many columns the terminal behind w has; 0 where w is none or
// does not say.
func Width(w io.Writer) int {
	f, ok := w.(*os.File)
	if !ok {
		return 0
	}
	columns, _ := terminal(f)
	return columns
}

// A Style paints text for a terminal; the zero Style leaves it as it is.
type Style struct{ on bool }

// StyleFor paints if w is a terminal that can show it and nobody asked for
// plain text (https://no-color.org/).
func StyleFor(w io.Writer, getenv func(string) string) Style {
	if getenv("NO_COLOR") != "" || getenv("TERM") == "dumb" {
		return Style{}
	}
	f, ok := w.(*os.File)
	return Style{on: ok && IsTerminal(f) && paints(f)}
}

// Bold is for heads, Dim for what matters less, Red for what is wrong, Yellow
// for what may be and Green for what is well.
func (s Style) Bold(text string) string   { return s.paint("1", text) }
func (s Style) Dim(text string) string    { return s.paint("2", text) }
func (s Style) Red(text string) string    { return s.paint("31", text) }
func (s Style) Yellow(text string) string { return s.paint("33", text) }
func (s Style) Green(text string) string  { return s.paint("32", text) }

func (s Style) paint(code, text string) string {
	if !s.on || text == "" {
		return text
	}
	return "\x1b[" + code + "m" + text + "\x1b[0m"
}
