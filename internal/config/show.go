package config

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/url"
	"strings"
	"unicode/utf8"
)

// Show writes every key with its value as a file would give it and, with
// origins, behind # where it came from. Secrets are masked.
func (l *Loaded) Show(w io.Writer, origins bool) error {
	var b bytes.Buffer
	section := ""
	for _, k := range l.keys {
		s, leaf := split(k.Name)
		if s != section {
			if section != "" {
				b.WriteByte('\n')
			}
			fmt.Fprintf(&b, "[%s]\n", s)
			section = s
		}
		line := leaf + " = " + k.literal()
		if origins {
			pad := max(1, 44-utf8.RuneCountInString(line))
			line += fmt.Sprintf("%*s# %s", pad, "", plain(l.origins[k.Name].String()))
		}
		b.WriteString(line + "\n")
	}
	_, err := w.Write(b.Bytes())
	return err
}

// ShowJSON writes all of that as one JSON object, by name of the key.
func (l *Loaded) ShowJSON(w io.Writer) error {
	type shown struct {
		Value  any    `json:"value"`
		Layer  string `json:"layer"`
		Source string `json:"source,omitempty"`
		Line   int    `json:"line,omitempty"`
	}
	var all members
	for _, k := range l.keys {
		o := l.origins[k.Name]
		all = append(all, member{k.Name, shown{k.json(), o.Layer.String(), o.Name, o.Line}})
	}
	return writeJSON(w, all)
}

func (k Key) literal() string {
	if s, masked := k.mask(); masked {
		return quote(s)
	}
	return k.Value.Literal()
}

func (k Key) json() any {
	if s, masked := k.mask(); masked {
		return s
	}
	return k.Value.get()
}

// mask shows of a secret what is none: that there is one, and the host of an
// address.
func (k Key) mask() (s string, masked bool) {
	s = k.Value.String()
	if !k.Secret || s == "" {
		return s, false
	}
	u, err := url.Parse(s)
	if err != nil || u.Host == "" {
		return "***", true
	}
	if u.User != nil {
		u.User = url.User("***")
	}
	return strings.Replace(u.String(), "%2A%2A%2A@", "***@", 1), true
}

// Schema writes the JSON Schema (2020-12) of the file, for editors that check
// and complete TOML.
func (s Spec) Schema(w io.Writer, title string) error {
	root := newObject(title)
	for _, k := range s.Keys {
		at := root
		section, leaf := split(k.Name)
		for part := range strings.SplitSeq(section, ".") {
			if part != "" {
				at = at.child(part)
			}
		}
		property := members{{"description", k.Usage}}
		if !k.Secret {
			property = append(property, member{"default", k.Value.get()})
		}
		for _, name := range []string{"type", "enum", "anyOf", "items", "minimum", "maximum", "pattern"} {
			if v, ok := k.Value.schema[name]; ok {
				property = append(property, member{name, v})
			}
		}
		at.properties = append(at.properties, member{leaf, property})
	}
	head := members{{"$schema", "https://json-schema.org/draft/2020-12/schema"}}
	return writeJSON(w, append(head, root.members()...))
}

// An object is the schema of a section.
type object struct {
	title      string
	properties members
}

func newObject(title string) *object { return &object{title: title} }

func (o *object) child(name string) *object {
	for _, p := range o.properties {
		if c, ok := p.value.(*object); ok && p.name == name {
			return c
		}
	}
	c := newObject("")
	o.properties = append(o.properties, member{name, c})
	return c
}

func (o *object) members() members {
	var m members
	if o.title != "" {
		m = append(m, member{"title", o.title})
	}
	return append(m, member{"type", "object"}, member{"additionalProperties", false}, member{"properties", o.properties})
}

func (o *object) MarshalJSON() ([]byte, error) { return json.Marshal(o.members()) }

// members is a JSON object whose members keep their order.
type members []member

type member struct {
	name  string
	value any
}

func (m members) MarshalJSON() ([]byte, error) {
	var b bytes.Buffer
	for i, each := range m {
		if i > 0 {
			b.WriteByte(',')
		}
		name, err := json.Marshal(each.name)
		if err != nil {
			return nil, err
		}
		value, err := json.Marshal(each.value)
		if err != nil {
			return nil, fmt.Errorf("write %s: %w", each.name, err)
		}
		b.Write(name)
		b.WriteByte(':')
		b.Write(value)
	}
	return append(append([]byte{'{'}, b.Bytes()...), '}'), nil
}

func writeJSON(w io.Writer, v any) error {
	e := json.NewEncoder(w)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	return e.Encode(v)
}
