package config

import (
	"bytes"
	"errors"
	"strings"
	"unicode/utf8"

	"github.com/pelletier/go-toml/v2/unstable"
)

// slips are what people write that is not TOML: what the parser says of it, in
// plain words, and what to do.
var slips = []struct{ parser, what, fix string }{
	{"escape", `in double quotes \ begins an escape, and this is none`, `write the text in single quotes: 'C:\ProgramData\REA'`},
	{"hexadecimal digit", `in double quotes \u and \U begin an escape, and this is none`, `write the text in single quotes: 'C:\Users\Public'`},
	{"cannot have new lines", "the text is not closed in its line", "close it with the quote that it began with"},
	{"unterminated", "the text is not closed", "close it with the quote that it began with"},
	{"not terminated", "the text is not closed", `close it with """`},
	{"strings must be quoted", "text must stand in quotes", `write key = "value"`},
	{"start of value", "this is no value: text must stand in quotes", `write key = "value"`},
	{"expected keyword", "this is no value: text must stand in quotes", `write key = "value", true or false`},
	{"expected value", "the value is missing", ""},
	{"'=' after key", "there is no = after the key", "write key = value"},
	{"start of key", "no key begins like this", "write key = value, or [section]"},
	{"']' to close", "the section is not closed", "write [section]"},
	{"']]' to close", "the section is not closed", "write [section]"},
	{"expected key but", "there is no key", "write key = value, or [section]"},
	{"expected newline", "there is more in the line than one key = value", "begin a new line, or a comment with #"},
	{"value that begins here", "the value that begins here is not closed", "close it with the quote or bracket that it began with"},
	{"array is incomplete", "the list is not closed", "close it with ]"},
	{"inline table is incomplete", "the table is not closed", "close it with }"},
	{"invalid UTF-8", "this is not UTF-8", "save the file as UTF-8"},
	{"leading zeroes", "a number does not begin with 0", ""},
	{"carriage return", "a carriage return stands alone", "end lines with LF or CRLF"},
	{"control characters", "a control character stands here", "take it out"},
}

var (
	looksLikeKey     = pattern(`^\s*([A-Za-z0-9_.-]+)\s*[=:](.*)`)
	looksLikeSection = pattern(`^\s*\[+\s*([A-Za-z0-9_.-]+)\s*\]*\s*(#.*)?$`)
)

// broken notes what is wrong with a statement that is not TOML, and returns
// where the next one seems to begin.
func (d *document) broken(err error) int {
	at, message := d.base, err.Error()
	if e, ok := errors.AsType[*unstable.ParserError](err); ok {
		at, message = d.offset(e.Highlight), e.Message
	}
	first, last := d.beginning(), d.origin(at, at+1).Line-1
	first = min(first, last)
	if last > first && (looksLikeKey().Match(d.line(last)) || looksLikeSection().Match(d.line(last)) || at >= len(d.data)-1) {
		// What was opened in the first line swallowed the lines after it.
		text := d.line(first)
		at, message = d.lines[first]+strings.IndexByte(string(text), '=')+1, "the value that begins here is not closed"
		for at < d.lines[first]+len(text)-1 && d.data[at] == ' ' {
			at++
		}
	}
	d.explain(message, at, first)
	return d.resume(first)
}

// offset tells where a piece of the parser's input stands in the file.
func (d *document) offset(piece []byte) int {
	if piece == nil {
		return max(d.base, len(d.data)-1)
	}
	return min(d.base+int(d.parser.Range(piece).Offset), max(0, len(d.data)-1))
}

// beginning finds the line in which the statement after the last good one begins.
func (d *document) beginning() int {
	line := d.origin(d.end, d.end).Line - 1
	if d.end > d.base {
		line++ // one statement a line
	}
	for ; line < len(d.lines)-1; line++ {
		if text := strings.TrimSpace(string(d.line(line))); text != "" && text[0] != '#' {
			break
		}
	}
	return min(line, len(d.lines)-1)
}

// explain notes the problem, what key or section it is about, and that its
// value is not known.
func (d *document) explain(message string, at, first int) {
	where, text := d.origin(at, at+1), string(d.line(first))
	where.width = 1
	what, fix := message, ""
	for _, s := range slips {
		if strings.Contains(message, s.parser) {
			what, fix = s.what, s.fix
			break
		}
	}
	if m := looksLikeSection().FindStringSubmatch(text); m != nil {
		_, known := d.sections[m[1]]
		d.section, d.skip = m[1], !known
		if known && strings.Contains(message, "to close") {
			fix = "write [" + m[1] + "]"
		}
		if known && d.opened[m[1]] == 0 {
			d.opened[m[1]] = first + 1
		}
	}
	name := ""
	if m := looksLikeKey().FindStringSubmatch(text); m != nil {
		if better, ok := valueSlip(m[1], m[2], what); ok {
			what, fix = better.What, better.Fix
			end := d.lines[first] + len(text)
			where = d.origin(end-len(strings.TrimLeft(m[2], " \t")), end)
		}
		if k := d.byName[strings.TrimPrefix(d.section+"."+m[1], ".")]; k != nil {
			name, d.bad[k.Name] = k.Name, true
			if k.Secret {
				where, fix = d.masked(where), ""
			}
			if strings.HasPrefix(fix, "write "+m[1]+" = \"") && !k.Value.quoted() {
				fix = "" // not even in quotes
			}
			if fix == "" {
				fix = "write " + k.Value.want
			}
		}
	}
	d.problem(name, where, what, fix)
}

// valueSlip says it better where what stands behind the key tells more.
func valueSlip(key, value, what string) (better Fault, ok bool) {
	value, _, _ = strings.Cut(value, "#")
	value = strings.TrimSpace(value)
	if what == "there is no = after the key" && value != "" {
		return Fault{what, "write " + key + " = " + hide(value)}, true
	}
	if !strings.HasPrefix(what, "this is no value") && !strings.HasPrefix(what, "text must") {
		return Fault{}, false
	}
	r, _ := utf8.DecodeRuneInString(value)
	switch {
	case value == "":
		return Fault{What: "the value is missing"}, true
	case strings.ContainsRune("“”„‘’‚«»`", r):
		return Fault{"this is not a quote that TOML knows", `write straight quotes: "`}, true
	case strings.ContainsAny(value, "\"'\\[]{}"):
		return Fault{}, false
	}
	switch strings.ToLower(value) {
	case "true", "yes", "on":
		return Fault{"this is no value", "write true"}, true
	case "false", "no", "off":
		return Fault{"this is no value", "write false"}, true
	}
	return Fault{what, "write " + key + ` = "` + hide(value) + `"`}, true
}

// resume finds where the next statement begins after a broken one that began in
// line: the next line, or where that one opened something that goes on over
// lines, the next that looks like a statement.
func (d *document) resume(line int) int {
	_, value, _ := bytes.Cut(d.line(line), []byte("="))
	spans := bytes.ContainsAny(value, "[{") || bytes.Contains(value, []byte(`"""`)) || bytes.Contains(value, []byte("'''"))
	for line++; line < len(d.lines); line++ {
		if text := d.line(line); !spans || looksLikeKey().Match(text) || looksLikeSection().Match(text) {
			return d.lines[line]
		}
	}
	return len(d.data)
}
