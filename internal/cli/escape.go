package cli

import (
	"fmt"
	"io"
	"strings"
	"unicode"
	"unicode/utf16"
	"unicode/utf8"
)

// Escape makes foreign text harmless to show: what a terminal would act on, what
// turns the direction of writing, what has no shape and what is not UTF-8 stands
// as \n, \x1b or \u202e. A backslash stays one, so this is for eyes only.
func Escape(s string) string { return escape(s, "") }

// EscapeLines is Escape for text of many lines: their ends and tabs stay.
func EscapeLines(s string) string { return escape(s, "\n\t") }

func escape(s, keep string) string {
	if !strings.ContainsFunc(s, func(r rune) bool { return !harmless(r) }) {
		return s
	}
	var b strings.Builder
	for i := 0; i < len(s); {
		r, n := utf8.DecodeRuneInString(s[i:])
		switch {
		case r == utf8.RuneError && n == 1:
			fmt.Fprintf(&b, `\x%02x`, s[i])
		case harmless(r) || strings.ContainsRune(keep, r):
			b.WriteRune(r)
		case r == '\n':
			b.WriteString(`\n`)
		case r == '\r':
			b.WriteString(`\r`)
		case r == '\t':
			b.WriteString(`\t`)
		case r < 0x80:
			fmt.Fprintf(&b, `\x%02x`, r)
		case r < 0x10000:
			fmt.Fprintf(&b, `\u%04x`, r)
		default:
			fmt.Fprintf(&b, `\U%08x`, r)
		}
		i += n
	}
	return b.String()
}

// ForTerminal returns a writer of JSON to w that is safe to look at: where w is a
// terminal, what Escape would change stands as the escapes of JSON, so that the
// text means the same. A program that reads it gets it as it is. Each write is to
// hold whole lines.
func ForTerminal(w io.Writer) io.Writer {
	if IsTerminal(w) {
		return jsonEscaper{w}
	}
	return w
}

type jsonEscaper struct{ w io.Writer }

func (e jsonEscaper) Write(p []byte) (int, error) {
	_, err := io.WriteString(e.w, escapeJSON(string(p)))
	return len(p), err
}

// escapeJSON escapes what is not harmless in JSON. Outside of its strings there
// are only letters, marks, spaces and ends of lines.
func escapeJSON(s string) string {
	var b strings.Builder
	for _, r := range s {
		switch {
		case harmless(r) || r == '\n' || r == '\t' || r == '\r':
			b.WriteRune(r)
		case r < 0x10000:
			fmt.Fprintf(&b, `\u%04x`, r)
		default:
			high, low := utf16.EncodeRune(r)
			fmt.Fprintf(&b, `\u%04x\u%04x`, high, low)
		}
	}
	return b.String()
}

// harmless reports whether r only shows itself. IsPrint leaves out control and
// format characters (the marks of direction are among these), separators,
// surrogates and what no standard has given a shape.
func harmless(r rune) bool { return r != utf8.RuneError && unicode.IsPrint(r) }

// Columns counts the columns that a terminal shows harmless text in: none for a
// mark on the letter before it, two for East Asian wide letters and pictures.
func Columns(s string) int {
	n := 0
	for _, r := range s {
		switch {
		case unicode.In(r, unicode.Mn, unicode.Me):
		case wide(r):
			n += 2
		default:
			n++
		}
	}
	return n
}

// wide covers the blocks that Unicode's EastAsianWidth.txt gives W or F, without
// the single wide characters between narrow ones.
func wide(r rune) bool {
	switch {
	case r < 0x1100:
		return false
	case r <= 0x115f, r >= 0x2e80 && r <= 0xa4cf && r != 0x303f, r >= 0xac00 && r <= 0xd7a3,
		r >= 0xf900 && r <= 0xfaff, r >= 0xfe30 && r <= 0xfe6f, r >= 0xff00 && r <= 0xff60,
		r >= 0xffe0 && r <= 0xffe6, r >= 0x1f300 && r <= 0x1faff, r >= 0x20000 && r <= 0x3fffd:
		return true
	}
	return false
}
