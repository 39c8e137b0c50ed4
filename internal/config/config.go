// Package config merges a configuration from four layers: flags before the
// environment before a TOML file before defaults, for every key alike. A key is
// bound to a Go variable that holds its default:
//
//	var port = 9100
//	spec := config.Spec{
//		Env: "REA_",
//		Keys: []config.Key{
//			{Name: "status.port", Usage: "The port.", Value: config.Int(&port, 1, 65535)},
//		},
//	}
//	loaded, err := spec.Load(config.Sources{File: "agent.toml", Environ: os.Environ()})
//
// is [status] port in the file, REA_STATUS_PORT in the environment and
// --status.port as a flag. Nothing is guessed and nothing is passed over: an
// unknown key, a wrong type, an impossible value, a line that is not TOML or a
// variable with a slip in its name is a Problem that shows the place, the
// offending line and what would be right. Load finds all of them in one go.
//
// Where each value came from is remembered, for Loaded.Show.
package config

import (
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strings"

	"github.com/rea-agent/rea/internal/near"
)

// A Key is one entry of a configuration, bound to a Go variable.
type Key struct {
	Name   string // "networking.queue_max_bytes": the section, and the key in it
	Usage  string // a sentence or two, for the documentation, the schema and the help
	Value  Value
	Secret bool // masked where it is shown
}

// split parts the section of a name from its last member.
func split(name string) (section, leaf string) {
	i := strings.LastIndexByte(name, '.')
	return name[:max(i, 0)], name[i+1:]
}

// A Conflict is a combination of values that cannot be, where each of them is
// right by itself.
type Conflict struct {
	Keys      []string // those that take part; the one to show first
	What, Fix string
}

// A Spec is the configuration of one program.
type Spec struct {
	Keys     []Key
	Validate func() []Conflict // called when all is merged; may be nil

	// Env is what the program's variables begin with, like REA_. What begins
	// with NotEnv belongs to another program.
	Env, NotEnv string
}

// Variable returns the name of the variable that sets the key of that name. A
// section that the prefix names already is not named again.
func (s Spec) Variable(name string) string {
	v := strings.ToUpper(strings.ReplaceAll(name, ".", "_"))
	own := strings.TrimPrefix(s.Env, "REA_")
	return s.Env + strings.TrimPrefix(v, own)
}

// FileVariable returns the name of the variable that names the file.
func (s Spec) FileVariable() string { return s.Env + "CONFIG" }

// Sources are what a configuration is merged from.
type Sources struct {
	File        string   // that must be there; where empty, the one that FileVariable names
	DefaultFile string   // read where neither names one, and need not be there
	Again       bool     // the file was read before: it has to be one that is there to be read twice, and not empty
	Environ     []string // NAME=value, as os.Environ has it
	Args        []Arg
}

// An Arg is a key that a flag sets.
type Arg struct {
	Key, Text string
	Flag      string // as it was written, for messages: --status-port
}

// A Layer is where values come from; the higher one goes before.
type Layer int

// The layers.
const (
	FromDefault Layer = iota
	FromFile
	FromEnv
	FromFlag
)

func (l Layer) String() string { return [...]string{"default", "file", "environment", "flag"}[l] }

// An Origin is where a value was written.
type Origin struct {
	Layer Layer
	Name  string // of the file, the variable or the flag

	Line, Column int // in a file, from 1; columns count characters
	source       string
	width        int // how many characters are meant
}

// String is for the eye: default, agent.toml:7, REA_STATUS_PORT, --status.port.
func (o Origin) String() string {
	switch {
	case o.Layer == FromDefault:
		return "default"
	case o.Line > 0:
		return fmt.Sprintf("%s:%d", o.Name, o.Line)
	}
	return o.Name
}

// place is String with the column; empty for a default.
func (o Origin) place() string {
	if o.Line > 0 {
		return fmt.Sprintf("%s:%d:%d", o.Name, o.Line, o.Column)
	}
	return o.Name
}

// A Loaded is a configuration whose keys hold what was merged.
type Loaded struct {
	File    string // that was read; empty if none
	keys    []Key
	origins map[string]Origin
}

// Origin tells where the value of a key came from.
func (l *Loaded) Origin(name string) Origin { return l.origins[name] }

// Load merges the sources into the variables that the keys are bound to. Its
// error is always Problems; the variables are then of no use.
func (s Spec) Load(src Sources) (*Loaded, error) {
	l := &loader{spec: s, loaded: Loaded{keys: s.Keys, origins: map[string]Origin{}}, bad: map[string]bool{}}
	l.index()
	l.file(src)
	l.environ(src.Environ)
	l.args(src.Args)
	l.validate()
	if len(l.problems) > 0 {
		return nil, l.problems
	}
	return &l.loaded, nil
}

// A loader is one Load.
type loader struct {
	spec     Spec
	byName   map[string]*Key
	names    []string            // of all keys
	sections map[string][]string // the keys of each section; without any for one that only has sections
	loaded   Loaded
	problems Problems
	bad      map[string]bool // keys whose value is not known for sure
}

func (l *loader) index() {
	l.byName, l.sections = map[string]*Key{}, map[string][]string{}
	for i := range l.spec.Keys {
		k := &l.spec.Keys[i]
		l.byName[k.Name] = k
		l.names = append(l.names, k.Name)
		section, leaf := split(k.Name)
		l.sections[section] = append(l.sections[section], leaf)
		for section, _ = split(section); section != ""; section, _ = split(section) {
			if _, known := l.sections[section]; !known {
				l.sections[section] = nil
			}
		}
	}
}

func (l *loader) problem(key string, where Origin, what, fix string) {
	l.problems = append(l.problems, Problem{Key: key, Where: where, What: what, Fix: fix})
}

// put sets a key to what a layer holds for it, or notes why that is not right.
func (l *loader) put(k *Key, got any, where Origin) bool {
	if err := k.Value.set(got); err != nil {
		l.refuse(k, err, where)
		return false
	}
	l.loaded.origins[k.Name] = where
	delete(l.bad, k.Name)
	return true
}

// parse is put for the text of a flag or a variable.
func (l *loader) parse(k *Key, text string, where Origin) {
	got, err := k.Value.parse(text)
	if err != nil {
		l.refuse(k, err, where)
		return
	}
	l.put(k, got, where)
}

func (l *loader) refuse(k *Key, err error, where Origin) {
	what, fix := err.Error(), "write "+k.Value.want
	if f, ok := errors.AsType[*Fault](err); ok && f.Fix != "" {
		fix = f.Fix
	}
	if k.Secret {
		what, fix = "the value, not shown here, is not right", "write "+k.Value.want
	}
	l.problem(k.Name, where, what, fix)
	l.bad[k.Name] = true
}

func (l *loader) environ(environ []string) {
	byVariable := map[string]*Key{}
	variables := []string{l.spec.FileVariable()}
	for name, k := range l.byName {
		v := l.spec.Variable(name)
		byVariable[v] = k
		variables = append(variables, v)
	}
	slices.Sort(variables)
	for _, entry := range slices.Sorted(slices.Values(environ)) {
		name, text, ok := l.variable(entry)
		if !ok || name == l.spec.FileVariable() {
			continue
		}
		where := Origin{Layer: FromEnv, Name: name}
		if k := byVariable[name]; k != nil {
			l.parse(k, text, where)
			continue
		}
		fix := "unset it: no key has that name"
		if meant := near.Name(name, variables); meant != "" {
			fix = "did you mean " + meant + "?"
		}
		l.problem("", where, "there is no such key", fix)
	}
}

// variable parts an entry of the environment, if it is one of the program's.
func (l *loader) variable(entry string) (name, text string, ok bool) {
	name, text, ok = strings.Cut(entry, "=")
	if runtime.GOOS == "windows" {
		name = strings.ToUpper(name) // Windows does not tell the cases apart
	}
	other := l.spec.NotEnv != "" && strings.HasPrefix(name, l.spec.NotEnv)
	return name, text, ok && strings.HasPrefix(name, l.spec.Env) && !other
}

func (l *loader) args(args []Arg) {
	for _, a := range args {
		where := Origin{Layer: FromFlag, Name: a.Flag}
		if k := l.byName[a.Key]; k != nil {
			l.parse(k, a.Text, where)
		} else {
			l.problem("", where, "there is no key "+a.Key, "")
		}
	}
}

// validate asks for conflicts. One in which a key takes part that had a problem
// of its own is not told: it may be gone with that.
func (l *loader) validate() {
	if l.spec.Validate == nil {
		return
	}
	for _, c := range l.spec.Validate() {
		if slices.ContainsFunc(c.Keys, func(name string) bool { return l.bad[name] }) {
			continue
		}
		key := c.Keys[0]
		for _, name := range c.Keys {
			if l.loaded.origins[name].Layer != FromDefault {
				key = name
				break
			}
		}
		l.problem(key, l.loaded.origins[key], c.What, c.Fix)
	}
}
