package config

import (
	"errors"
	"fmt"
	"net"
	"net/url"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/rea-agent/rea/internal/near"
)

// A Value is a Go variable that a key is bound to, with what may be put in it.
// It is made by the functions below and shows itself as its variable stands.
type Value struct {
	kind   string                    // the type's name, for people
	want   string                    // what would be right, after "write"
	choice []string                  // all that is right, where that is a short list
	schema map[string]any            // JSON Schema, without default and description
	get    func() any                // as TOML and JSON have it: bool, int64, string or []string
	text   func(any) string          // what get returned, where people write it shorter
	set    func(any) error           // checks what stood in a file, and takes it
	parse  func(string) (any, error) // makes of a flag's text what set takes
	rebase func(dir string)          // makes a relative path start at dir; nil where it is none
}

// Type names the type for people: boolean, integer, size, milliseconds, text,
// path, address, choice, list, range.
func (v Value) Type() string { return v.kind }

// Want says what would be right: "an integer from 1 to 65535".
func (v Value) Want() string { return v.want }

// Choices lists all that is right where that is a short list, for completions.
func (v Value) Choices() []string { return v.choice }

// IsBool reports whether the value is true or false, so that its flag needs none.
func (v Value) IsBool() bool { return v.kind == "boolean" }

// IsPath reports whether the value is the path of a file or a folder.
func (v Value) IsPath() bool { return v.rebase != nil }

// quoted reports whether a file gives the value in quotes.
func (v Value) quoted() bool {
	return v.schema["type"] == "string" || v.kind == "size"
}

// String shows the value as a flag or an environment variable would give it.
func (v Value) String() string {
	got := v.get()
	if v.text != nil {
		return v.text(got)
	}
	if list, ok := got.([]string); ok {
		return strings.Join(list, ",")
	}
	return fmt.Sprint(got)
}

// Literal shows the value as a file would give it.
func (v Value) Literal() string {
	got := v.get()
	if v.text != nil {
		if s := v.text(got); s != fmt.Sprint(got) {
			return quote(s)
		}
	}
	switch got := got.(type) {
	case string:
		return quote(got)
	case []string:
		quoted := make([]string, len(got))
		for i, s := range got {
			quoted[i] = quote(s)
		}
		return "[" + strings.Join(quoted, ", ") + "]"
	}
	return fmt.Sprint(got)
}

// quote writes a TOML string: a literal one where a backslash would need doubling.
func quote(s string) string {
	plain := !strings.ContainsFunc(s, func(r rune) bool { return r == '\'' || unicode.IsControl(r) })
	if plain && strings.ContainsAny(s, `\"`) {
		return "'" + s + "'"
	}
	var b strings.Builder
	b.WriteByte('"')
	for _, r := range s {
		switch {
		case r == '"' || r == '\\':
			b.WriteRune('\\')
			b.WriteRune(r)
		case unicode.IsControl(r):
			fmt.Fprintf(&b, `\u%04X`, r)
		default:
			b.WriteRune(r)
		}
	}
	b.WriteByte('"')
	return b.String()
}

// A Fault is an error that says what is wrong with a value, and what to do about
// it where that is more than to write what the key wants.
type Fault struct{ What, Fix string }

func (f *Fault) Error() string { return f.What }

func faultf(format string, args ...any) error {
	return &Fault{What: fmt.Sprintf(format, args...)}
}

// A Check looks at a text before it is taken. Its error goes on where a sentence
// began with the text: "is not a pin". It may be a Fault.
type Check func(string) error

// check runs the checks on s and makes a whole sentence of what they find.
func check(s string, checks []Check) error {
	for _, c := range checks {
		err := c(s)
		if err == nil {
			continue
		}
		whole := &Fault{What: describe(s) + " " + err.Error()}
		if f, ok := errors.AsType[*Fault](err); ok {
			whole.Fix = f.Fix
		}
		return whole
	}
	return nil
}

func (v Value) mistaken(got any) error {
	return faultf("%s is not %s", describe(got), article(v.kind))
}

// foreign is what a file may hold and no key takes, by its name: "a table".
type foreign string

// describe names what a file holds: the text "ten", the number 1.5, a list.
func describe(got any) string {
	switch got := got.(type) {
	case bool:
		return strconv.FormatBool(got)
	case int64:
		return "the number " + strconv.FormatInt(got, 10)
	case string:
		got = shorten(got)
		if strings.ContainsFunc(got, unicode.IsControl) {
			return "the text " + strconv.Quote(got)
		}
		return `the text "` + got + `"`
	case float64:
		return "the number " + strconv.FormatFloat(got, 'g', -1, 64)
	case []any:
		return "a list"
	case foreign:
		return string(got)
	}
	return fmt.Sprint(got)
}

func shorten(s string) string {
	const most = 60
	if r := []rune(s); len(r) > most {
		return string(r[:most]) + "…"
	}
	return s
}

func article(noun string) string {
	switch {
	case noun == "milliseconds":
		return "a number of milliseconds"
	case noun == "text":
		return "text"
	case strings.ContainsRune("aeiou", rune(noun[0])):
		return "an " + noun
	}
	return "a " + noun
}

// Bool binds true or false.
func Bool(p *bool) Value {
	v := Value{kind: "boolean", want: "true or false", choice: []string{"true", "false"}, schema: map[string]any{"type": "boolean"}}
	v.get = func() any { return *p }
	v.set = func(got any) error {
		b, ok := got.(bool)
		if !ok {
			return v.mistaken(got)
		}
		*p = b
		return nil
	}
	v.parse = func(s string) (any, error) {
		b, err := strconv.ParseBool(s)
		if err != nil {
			return nil, v.mistaken(s)
		}
		return b, nil
	}
	return v
}

// Int binds an integer from low to high.
func Int(p *int, low, high int) Value {
	v := Value{kind: "integer", want: fmt.Sprintf("an integer from %d to %d", low, high)}
	v.get = func() any { return int64(*p) }
	v.integer(int64(low), int64(high), func(n int64) { *p = int(n) })
	return v
}

// Millis binds a duration from low to high that is written as a number of
// milliseconds, as the names of such keys (…_ms) say.
func Millis(p *time.Duration, low, high time.Duration) Value {
	v := Value{kind: "milliseconds", want: fmt.Sprintf("a number of milliseconds from %d to %d", low.Milliseconds(), high.Milliseconds())}
	v.get = func() any { return p.Milliseconds() }
	v.integer(low.Milliseconds(), high.Milliseconds(), func(n int64) { *p = time.Duration(n) * time.Millisecond })
	set, parse := v.set, v.parse
	v.set = func(got any) error { return withMillis(got, set(got)) }
	v.parse = func(s string) (any, error) {
		n, err := parse(s)
		return n, withMillis(s, err)
	}
	return v
}

// withMillis adds the number to write to the fault of a text like "10s".
func withMillis(got any, err error) error {
	s, ok := got.(string)
	if !ok || err == nil {
		return err
	}
	d, bad := time.ParseDuration(strings.TrimSpace(s))
	if bad != nil {
		return err
	}
	return &Fault{What: err.Error(), Fix: fmt.Sprintf("write the milliseconds: %d", d.Milliseconds())}
}

// integer fills in what integers from low to high have in common.
func (v *Value) integer(low, high int64, put func(int64)) {
	v.schema = map[string]any{"type": "integer", "minimum": low, "maximum": high}
	kind := *v
	v.set = func(got any) error {
		n, ok := got.(int64)
		if !ok {
			return kind.mistaken(got)
		}
		if n < low || n > high {
			return faultf("%d is out of range", n)
		}
		put(n)
		return nil
	}
	v.parse = func(s string) (any, error) {
		n, err := strconv.ParseInt(s, 10, 64)
		if err != nil {
			return nil, kind.mistaken(s)
		}
		return n, nil
	}
}

// Bytes binds a size from low to high that is written as a number of bytes or
// as text with a unit, like "64MiB".
func Bytes(p *int64, low, high int64) Value {
	v := Value{kind: "size", want: fmt.Sprintf(`a size from %s to %s, in bytes or like "64MiB"`, size(low), size(high))}
	v.get = func() any { return *p }
	v.text = func(got any) string { return size(got.(int64)) }
	v.integer(low, high, func(n int64) { *p = n })
	number := v.set
	v.set = func(got any) error {
		if s, ok := got.(string); ok {
			n, err := parseSize(s)
			if err != nil {
				return err
			}
			got = n
		}
		return number(got)
	}
	v.parse = func(s string) (any, error) { return parseSize(s) }
	v.schema = map[string]any{"anyOf": []any{v.schema, map[string]any{"type": "string", "pattern": `^[0-9]+ ?(B|[KMGT]i?B|kB)?$`}}}
	return v
}

var units = []struct {
	name string
	n    int64
}{
	{"TiB", 1 << 40}, {"GiB", 1 << 30}, {"MiB", 1 << 20}, {"KiB", 1 << 10},
	{"TB", 1e12}, {"GB", 1e9}, {"MB", 1e6}, {"KB", 1e3}, {"kB", 1e3}, {"B", 1},
}

// size writes n with the largest binary unit that leaves no remainder.
func size(n int64) string {
	for _, u := range units[:4] {
		if n >= u.n && n%u.n == 0 {
			return strconv.FormatInt(n/u.n, 10) + u.name
		}
	}
	return strconv.FormatInt(n, 10)
}

func parseSize(s string) (int64, error) {
	digits, unit := s, int64(1)
	for _, u := range units {
		if rest, found := strings.CutSuffix(s, u.name); found {
			digits, unit = strings.TrimSuffix(rest, " "), u.n
			break
		}
	}
	n, err := strconv.ParseUint(digits, 10, 63)
	if err != nil {
		return 0, faultf("%s is not a size", describe(s))
	}
	if int64(n) > (1<<63-1)/unit {
		return 0, faultf("%s is out of range", s)
	}
	return int64(n) * unit, nil
}

// Text binds any text that passes the checks.
func Text(p *string, want string, checks ...Check) Value {
	return text("text", want, p, checks)
}

// Path binds the path of a file or a folder. One that a file gives relative is
// made to start at the folder of that file, since a service starts anywhere.
func Path(p *string, want string) Value {
	v := text("path", want, p, []Check{plainPath})
	v.rebase = func(dir string) {
		if *p != "" && !absolute(*p) {
			*p = filepath.Join(dir, *p)
		}
	}
	return v
}

// absolute reports whether path is absolute on any system, so that a file of
// another one can be checked.
func absolute(path string) bool {
	return strings.HasPrefix(path, "/") || strings.HasPrefix(path, `\`) || len(path) > 1 && path[1] == ':'
}

var variable = pattern(`%[A-Za-z()0-9]+%|^~|^\$\w+`)

func plainPath(s string) error {
	if strings.ContainsFunc(s, unicode.IsControl) {
		return &Fault{
			What: "holds a control character",
			Fix:  `write a path with backslashes in single quotes, 'C:\temp\new': in double quotes \t is a tab and \n a new line`,
		}
	}
	if !strings.ContainsAny(s, "%~$") {
		return nil
	}
	if found := variable().FindString(s); found != "" {
		return &Fault{What: "holds " + found + ", which is not replaced", Fix: "write the path in full"}
	}
	return nil
}

// URL binds the address of a server, scheme://host:port, with one of the
// schemes and nothing after the port; or empty text.
func URL(p *string, want string, schemes ...string) Value {
	return text("address", want, p, []Check{func(s string) error { return checkURL(s, schemes) }})
}

func checkURL(s string, schemes []string) error {
	if s == "" {
		return nil
	}
	u, err := url.Parse(s)
	switch {
	case err != nil || u.Scheme == "" || u.Hostname() == "":
		return errors.New("is not an address with a scheme, a host and a port")
	case !slices.Contains(schemes, u.Scheme):
		return fmt.Errorf("begins with %s://", u.Scheme)
	case strings.Trim(u.Path, "/") != "" || u.RawQuery != "" || u.Fragment != "":
		return &Fault{What: "goes on after host and port", Fix: fmt.Sprintf("write %q", u.Scheme+"://"+u.Host)}
	}
	if port := u.Port(); port != "" {
		if n, err := strconv.Atoi(port); err != nil || n < 1 || n > 65535 {
			return errors.New("has a port that is not from 1 to 65535")
		}
	}
	return nil
}

// Address binds a host:port to listen on.
func Address(p *string) Value {
	return text("address", "host:port with a port from 0 to 65535, like 127.0.0.1:8443", p, []Check{func(s string) error {
		_, port, err := net.SplitHostPort(s)
		if _, bad := strconv.ParseUint(port, 10, 16); err != nil || bad != nil {
			return errors.New("is not host:port")
		}
		return nil
	}})
}

func text(kind, want string, p *string, checks []Check) Value {
	v := Value{kind: kind, want: want, schema: map[string]any{"type": "string"}}
	v.get = func() any { return *p }
	v.set = func(got any) error {
		s, ok := got.(string)
		if !ok {
			return faultf("%s is not text", describe(got))
		}
		if !utf8.ValidString(s) {
			return faultf("the text %q is not UTF-8", shorten(s))
		}
		if err := check(s, checks); err != nil {
			return err
		}
		*p = s
		return nil
	}
	v.parse = func(s string) (any, error) { return s, nil }
	return v
}

// Enum binds one of the choices.
func Enum(p *string, choices ...string) Value {
	quoted := make([]string, len(choices))
	for i, c := range choices {
		quoted[i] = strconv.Quote(c)
	}
	want := strings.Join(quoted, " or ")
	v := text("choice", want, p, []Check{func(s string) error {
		if slices.Contains(choices, s) {
			return nil
		}
		fault := &Fault{What: "is not one of the choices"}
		if meant := near.Name(s, choices); meant != "" {
			fault.Fix = fmt.Sprintf("did you mean %q? The choices: %s", meant, want)
		}
		return fault
	}})
	v.choice = choices
	v.schema["enum"] = choices
	return v
}

// Refuse names a choice that one may expect and that is not there, and why.
func (v Value) Refuse(choice, why string) Value {
	set := v.set
	v.set = func(got any) error {
		if got == choice {
			return faultf("%q %s", choice, why)
		}
		return set(got)
	}
	return v
}

// Strings binds a list of texts that each pass the checks. In one text they are
// divided by commas.
func Strings(p *[]string, want string, checks ...Check) Value {
	v := Value{kind: "list", want: want, schema: map[string]any{"type": "array", "items": map[string]any{"type": "string"}}}
	v.get = func() any { return *p }
	v.set = func(got any) error {
		members, ok := got.([]any)
		if !ok {
			return v.mistaken(got)
		}
		list := make([]string, 0, len(members))
		for _, m := range members {
			var s string
			if err := text("text", want, &s, checks).set(m); err != nil {
				return err
			}
			list = append(list, s)
		}
		*p = list
		return nil
	}
	v.parse = func(s string) (any, error) {
		list := []any{}
		for m := range strings.SplitSeq(s, ",") {
			if m = strings.TrimSpace(m); m != "" {
				list = append(list, m)
			}
		}
		return list, nil
	}
	return v
}

// A Range is two durations, written "500..5000" in milliseconds.
type Range struct{ Min, Max time.Duration }

func (r Range) String() string {
	return fmt.Sprintf("%d..%d", r.Min.Milliseconds(), r.Max.Milliseconds())
}

// MillisRange binds a Range whose both ends lie from low to high.
func MillisRange(p *Range, low, high time.Duration) Value {
	want := fmt.Sprintf(`"least..most" in milliseconds from %d to %d, like "500..5000"`, low.Milliseconds(), high.Milliseconds())
	v := Value{kind: "range", want: want, schema: map[string]any{"type": "string", "pattern": `^[0-9]+\.\.[0-9]+$`}}
	v.get = func() any { return p.String() }
	v.set = func(got any) error {
		s, ok := got.(string)
		least, most, cut := strings.Cut(s, "..")
		a, err := strconv.ParseInt(least, 10, 32)
		b, err2 := strconv.ParseInt(most, 10, 32)
		if !ok || !cut || err != nil || err2 != nil {
			return v.mistaken(got)
		}
		r := Range{time.Duration(a) * time.Millisecond, time.Duration(b) * time.Millisecond}
		if r.Min > r.Max {
			return faultf("%d is above %d", a, b)
		}
		if r.Min < low || r.Max > high {
			return faultf("%s is out of range", s)
		}
		*p = r
		return nil
	}
	v.parse = func(s string) (any, error) { return s, nil }
	return v
}
