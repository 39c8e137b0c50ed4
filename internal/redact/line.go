package redact

import (
	"bytes"
	"encoding/json"
	"slices"
	"strings"
)

// Line redacts one line, as the pipeline would have: of an event the members of
// its body, of other JSON every text, and anything else as one text. It returns
// what is left, and what was done, as an event's "redacted" says it.
func (p *Policy) Line(line string) (clean string, redacted []string) {
	text := strings.TrimSpace(line)
	if !strings.HasPrefix(text, "{") || !json.Valid([]byte(text)) {
		clean, _, secrets := p.Apply("", "", Text, line)
		switch {
		case secrets != "":
			redacted = append(redacted, "line:"+secrets)
		case clean != line:
			redacted = append(redacted, "line")
		}
		return clean, redacted
	}
	var envelope struct {
		Kind     string
		Redacted []string
	}
	_ = json.Unmarshal([]byte(text), &envelope) // other JSON has no kind, or another one
	r := rewriter{policy: p, in: text, kind: envelope.Kind, redacted: envelope.Redacted, event: strings.Contains(text, `"`+envelope.Kind+`":{`)}
	r.object("")
	return string(r.out), r.redacted
}

// A rewriter copies a valid JSON value and redacts its texts on the way.
type rewriter struct {
	policy   *Policy
	in       string
	at       int
	out      []byte
	kind     string
	event    bool     // of ours: what stands beside the body stays
	path     []string // of members, down to the one that is written
	redacted []string
}

// skip goes over white space, and sign if it follows; it reports whether it did.
func (r *rewriter) skip(sign byte) bool {
	for r.at < len(r.in) && strings.IndexByte(" \t\r\n", r.in[r.at]) >= 0 {
		r.at++
	}
	if r.at < len(r.in) && r.in[r.at] == sign {
		r.at++
		return true
	}
	return false
}

// value copies the value of a member. It reports whether anything of it stays.
func (r *rewriter) value(name string) bool {
	r.skip(0)
	switch r.in[r.at] {
	case '{':
		r.object(name)
	case '[':
		r.list(name)
	case '"':
		return r.text(name, r.string())
	default:
		end := r.at + strings.IndexAny(r.in[r.at:]+" ", ",]} \t\r\n")
		token := r.in[r.at:end]
		r.at = end
		if kind, ok := namedSecret(name, token); ok && r.reached() {
			r.note(name + ":" + kind)
			token = `"` + Mark + `"`
		}
		r.out = append(r.out, token...)
	}
	return true
}

func (r *rewriter) object(name string) {
	if name != "" {
		r.path = append(r.path, name)
		defer func() { r.path = r.path[:len(r.path)-1] }()
	}
	r.skip('{')
	r.out = append(r.out, '{')
	for r.skip(0); r.in[r.at] != '}'; r.skip(',') {
		r.skip(0)
		mark := len(r.out)
		if r.out[mark-1] != '{' {
			r.out = append(r.out, ',')
		}
		member := r.string()
		r.out = append(quote(r.out, member), ':')
		r.skip(':')
		if !r.value(member) || len(r.path) == 0 && r.event && member == "redacted" {
			r.out = r.out[:mark]
		}
		r.skip(0)
	}
	r.at++
	if len(r.path) == 0 && len(r.redacted) > 0 {
		list, _ := json.Marshal(r.redacted) // texts can always be written
		r.out = append(append(r.out, `,"redacted":`...), list...)
	}
	r.out = append(r.out, '}')
}

func (r *rewriter) list(name string) {
	r.skip('[')
	r.out = append(r.out, '[')
	for r.skip(0); r.in[r.at] != ']'; r.skip(',') {
		if r.out[len(r.out)-1] != '[' {
			r.out = append(r.out, ',')
		}
		if !r.value(name) {
			r.out = quote(r.out, Mark)
		}
		r.skip(0)
	}
	r.at++
	r.out = append(r.out, ']')
}

// string reads a JSON string.
func (r *rewriter) string() (s string) {
	end := r.at + 1
	for r.in[end] != '"' {
		if r.in[end] == '\\' {
			end++
		}
		end++
	}
	_ = json.Unmarshal([]byte(r.in[r.at:end+1]), &s) // it is valid
	r.at = end + 1
	return s
}

// text writes what may be written of a text.
func (r *rewriter) text(name, s string) bool {
	if !r.reached() && name != "errors" {
		r.out = quote(r.out, s)
		return true
	}
	clean, keep, secrets := r.policy.Apply(r.kind, name, Text, s)
	switch {
	case secrets != "":
		r.note(name + ":" + secrets)
	case !keep || clean != s:
		r.note(name)
	}
	r.out = quote(r.out, clean)
	return keep
}

// reached reports whether what is written now is of those that are redacted.
func (r *rewriter) reached() bool { return !r.event || len(r.path) > 0 }

func (r *rewriter) note(name string) {
	if path := strings.Join(append(r.path, name), "."); !slices.Contains(r.redacted, path) {
		r.redacted = append(r.redacted, path)
	}
}

// quote appends s as a JSON string, as people write it.
func quote(dst []byte, s string) []byte {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	_ = e.Encode(s) // texts can always be written
	return append(dst, bytes.TrimSuffix(b.Bytes(), []byte("\n"))...)
}
