package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// A value is one of JSON whose members keep their order.
type value struct {
	kind  json.Delim // { or [; 0 for all else
	names []string   // of the members of an object
	list  []value    // its members, or those of a list
	text  string     // of all else, as it is written
}

// goldens are the golden events by system and kind.
type goldens map[string]map[string][]value

func readGoldens(root string) (goldens, error) {
	g := goldens{"linux": {}, "windows": {}}
	for system, kinds := range g {
		files, err := filepath.Glob(filepath.Join(root, "internal/collect/*/testdata", system+".golden"))
		if err != nil || len(files) == 0 {
			return nil, fmt.Errorf("no golden events of %s in %q", system, root)
		}
		for _, f := range files {
			text, err := os.ReadFile(f)
			if err != nil {
				return nil, err
			}
			events, err := parse(text)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", f, err)
			}
			kind := filepath.Base(filepath.Dir(filepath.Dir(f)))
			kinds[kind] = events
		}
	}
	return g, nil
}

// parse returns the values in text.
func parse(text []byte) (list []value, err error) {
	d := json.NewDecoder(bytes.NewReader(text))
	d.UseNumber()
	for {
		v, err := next(d)
		if errors.Is(err, io.EOF) {
			return list, nil
		}
		if err != nil {
			return nil, err
		}
		list = append(list, v)
	}
}

func next(d *json.Decoder) (v value, err error) {
	t, err := d.Token()
	if err != nil {
		return v, err
	}
	var open bool
	if v.kind, open = t.(json.Delim); !open {
		v.text = quote(t)
		return v, nil
	}
	for d.More() {
		if v.kind == '{' {
			name, err := d.Token()
			if err != nil {
				return v, err
			}
			v.names = append(v.names, name.(string))
		}
		m, err := next(d)
		if err != nil {
			return v, err
		}
		v.list = append(v.list, m)
	}
	_, err = d.Token()
	return v, err
}

// quote returns what is no object and no list as it is written.
func quote(t any) string {
	s, ok := t.(string)
	if !ok {
		return fmt.Sprint(t)
	}
	return strings.ReplaceAll(strconv.Quote(s), "\u007f", "\\u007f")
}

// append appends v without white space.
func (v value) append(b []byte) []byte {
	if v.kind == 0 {
		return append(b, v.text...)
	}
	b = append(b, byte(v.kind))
	for i, m := range v.list {
		if i > 0 {
			b = append(b, ',')
		}
		if v.kind == '{' {
			b = append(strconv.AppendQuote(b, v.names[i]), ':')
		}
		b = m.append(b)
	}
	return append(b, byte(v.kind)+2) // } or ]
}

// member returns the member of that name; a value of its own where there is none.
func (v value) member(name string) *value {
	for i, n := range v.names {
		if n == name {
			return &v.list[i]
		}
	}
	return new(value)
}
