package config

import (
	"bytes"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/pelletier/go-toml/v2/unstable"

	"github.com/rea-agent/rea/internal/near"
)

// maxProblems bounds what is told of one file: whoever gave another file by
// mistake need not scroll.
const maxProblems = 20

// A document is a TOML file on its way into the keys. It is walked statement by
// statement, so that each problem can show where it stands and the next
// statement is looked at all the same.
type document struct {
	*loader
	name, dir string
	data      []byte
	lines     []int // where each line begins

	base    int             // where in data the parser began
	end     int             // where its last good statement ended
	section string          // that is open
	skip    bool            // its keys are not looked at: it is not known
	keys    map[string]int  // the line that each was set in
	opened  map[string]int  // the line that each section was opened in
	parser  unstable.Parser // its nodes are good until the next statement
}

func (d *document) walk() {
	d.keys, d.opened = map[string]int{}, map[string]int{}
	d.lines = append(d.lines, 0)
	for i, c := range d.data {
		if c == '\n' {
			d.lines = append(d.lines, i+1)
		}
	}
	for d.base < len(d.data) {
		d.parser.Reset(d.data[d.base:])
		d.end = d.base
		for d.parser.NextExpression() {
			d.statement(d.parser.Expression())
			if d.full() {
				return
			}
		}
		err := d.parser.Error()
		if err == nil {
			return
		}
		d.base = d.broken(err)
		if d.full() {
			return
		}
	}
}

// full ends the walk of a file with very many problems.
func (d *document) full() bool {
	if len(d.problems) < maxProblems {
		return false
	}
	d.problem("", Origin{Layer: FromFile, Name: d.name}, "there may be more, the rest was not looked at", "")
	d.incomplete()
	return true
}

func (d *document) statement(n *unstable.Node) {
	name, at, end := d.path(n)
	d.end = end
	if n.Kind != unstable.KeyValue {
		d.open(name, n.Kind == unstable.ArrayTable, d.origin(at, end))
		return
	}
	d.end = d.base + int(n.Raw.Offset+n.Raw.Length)
	if !d.skip {
		d.assign(d.section, n)
	}
}

// path joins the parts of a key and tells from where to where it stands.
func (d *document) path(n *unstable.Node) (name string, start, end int) {
	var parts []string
	start = -1
	for it := n.Key(); it.Next(); {
		part := it.Node()
		if bytes.IndexByte(part.Data, '.') >= 0 {
			parts = append(parts, strconv.Quote(string(part.Data)))
		} else {
			parts = append(parts, string(part.Data))
		}
		if start < 0 {
			start = d.base + int(part.Raw.Offset)
		}
		end = d.base + int(part.Raw.Offset+part.Raw.Length)
	}
	return strings.Join(parts, "."), start, end
}

// open begins a section.
func (d *document) open(name string, list bool, where Origin) {
	d.section, d.skip = name, false
	_, known := d.sections[name]
	switch {
	case d.byName[name] != nil:
		section, leaf := split(name)
		d.problem("", where, name+" is a key, not a section", fmt.Sprintf("write %s = … below [%s]", leaf, section))
		d.skip, d.bad[name] = true, true
	case !known:
		d.skip = true
		d.problem("", where, "there is no section ["+shorten(name)+"]", d.sectionMeant(name))
	case list:
		d.problem("", where, "[["+name+"]] would begin a list of sections", "write ["+name+"]")
	case d.opened[name] > 0:
		d.problem("", where, fmt.Sprintf("[%s] was opened in line %d already", name, d.opened[name]), "put its keys together")
	default:
		d.opened[name] = where.Line
	}
}

// sectionMeant says which sections there are. The keys of the one that was most
// likely meant are not known now.
func (d *document) sectionMeant(name string) string {
	var names []string
	for s := range d.sections {
		if s != "" {
			names = append(names, s)
		}
	}
	slices.Sort(names)
	meant := near.Name(name, names)
	if meant == "" {
		return "the sections: [" + strings.Join(names, "] [") + "]"
	}
	for _, leaf := range d.sections[meant] {
		d.bad[meant+"."+leaf] = true
	}
	return "did you mean [" + meant + "]?"
}

// assign takes key = value in a section, and the members of an inline table one
// by one.
func (d *document) assign(section string, n *unstable.Node) {
	path, start, end := d.path(n)
	name := path
	if section != "" {
		name = section + "." + path
	}
	value := n.Value()
	k := d.byName[name]
	_, isSection := d.sections[name]
	switch {
	case k != nil:
		d.take(k, value, d.valueAt(n, end))
	case isSection && value.Kind == unstable.InlineTable:
		for it := value.Children(); it.Next(); {
			if it.Node().Kind == unstable.KeyValue {
				d.assign(name, it.Node())
			}
		}
	case isSection:
		d.problem("", d.origin(start, end), name+" is a section, not a key", "write ["+name+"], and its keys below")
	default:
		d.problem("", d.origin(start, end), "there is no key "+shorten(name), d.keyMeant(name))
	}
}

func (d *document) take(k *Key, value *unstable.Node, at Origin) {
	if k.Secret {
		at = d.masked(at)
	}
	if line := d.keys[k.Name]; line > 0 {
		d.problem(k.Name, at, fmt.Sprintf("this was set in line %d already", line), "leave one of them")
		return
	}
	d.keys[k.Name] = at.Line
	if d.put(k, decode(value), at) && k.Value.rebase != nil {
		k.Value.rebase(d.dir)
	}
}

// keyMeant says what an unknown key was most likely meant to be. The value of
// that one is not known now.
func (d *document) keyMeant(name string) string {
	section, leaf := split(name)
	if meant := near.Name(leaf, d.sections[section]); meant != "" {
		d.bad[strings.TrimPrefix(section+"."+meant, ".")] = true
		return "did you mean " + meant + "?"
	}
	var leaves []string
	for _, known := range d.names {
		_, leaf := split(known)
		leaves = append(leaves, leaf)
	}
	var homes []string
	for i, known := range leaves {
		if s, _ := split(d.names[i]); known == near.Name(leaf, leaves) {
			homes = append(homes, "["+s+"]")
			d.bad[d.names[i]] = true
			leaf = known
		}
	}
	switch own := d.sections[section]; {
	case len(homes) > 0 && len(homes) <= 3:
		return leaf + " belongs below " + strings.Join(homes, " or ")
	case len(own) > 0 && section != "":
		return "the keys of [" + section + "]: " + strings.Join(own, ", ")
	}
	return "take it out"
}

// decode makes of a node what Value.set takes.
func decode(n *unstable.Node) any {
	switch n.Kind {
	case unstable.Bool:
		return string(n.Data) == "true"
	case unstable.String:
		return string(n.Data)
	case unstable.Integer:
		// Base 0 reads what TOML has: 0x, 0o, 0b, and _ between digits.
		i, err := strconv.ParseInt(string(n.Data), 0, 64)
		if err != nil {
			return foreign("a number beyond 64 bits")
		}
		return i
	case unstable.Float:
		f, err := strconv.ParseFloat(strings.ReplaceAll(string(n.Data), "_", ""), 64)
		if err != nil {
			return math.NaN()
		}
		return f
	case unstable.Array:
		list := []any{}
		for it := n.Children(); it.Next(); {
			if it.Node().Kind != unstable.Comment {
				list = append(list, decode(it.Node()))
			}
		}
		return list
	case unstable.InlineTable:
		return foreign("a table")
	}
	return foreign("a date or time")
}

// valueAt tells where the value of a statement stands whose key ends at end.
func (d *document) valueAt(n *unstable.Node, end int) Origin {
	last := d.base + int(n.Raw.Offset+n.Raw.Length)
	if equals := bytes.IndexByte(d.data[end:last], '='); equals >= 0 {
		end += equals + 1
	}
	for end < last && (d.data[end] == ' ' || d.data[end] == '\t') {
		end++
	}
	return d.origin(end, last)
}

// origin makes a place of start..end, or what of it is in the first line.
func (d *document) origin(start, end int) Origin {
	line, found := slices.BinarySearch(d.lines, start)
	if !found {
		line--
	}
	text := d.line(line)
	from := min(start-d.lines[line], len(text))
	to := max(from, min(end-d.lines[line], len(text)))
	return Origin{
		Layer: FromFile, Name: d.name,
		Line: line + 1, Column: utf8.RuneCount(text[:from]) + 1,
		source: string(text), width: utf8.RuneCount(text[from:to]),
	}
}

// line returns the line without its end, lines counted from 0.
func (d *document) line(i int) []byte {
	end := len(d.data)
	if i+1 < len(d.lines) {
		end = d.lines[i+1]
	}
	return bytes.TrimRight(d.data[d.lines[i]:end], "\r\n")
}

// masked hides the value in the line of a place.
func (d *document) masked(o Origin) Origin {
	key, _, found := strings.Cut(o.source, "=")
	if !found {
		key = ""
	}
	o.source = key + "= ***"
	o.Column, o.width = utf8.RuneCountInString(o.source)-2, 3
	return o
}
