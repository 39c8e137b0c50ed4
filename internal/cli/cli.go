// Package cli is the command line of both programs: a tree of commands, flags
// that may stand anywhere, help with examples at every level, completions for
// four shells, and exit codes that scripts can rely on.
//
//	program := &cli.Program{
//		Name:     "rea-agent",
//		Summary:  "collects what this machine does",
//		Default:  "run",
//		Commands: []*cli.Command{{Name: "run", Summary: "collect and deliver", Run: run}},
//	}
//	os.Exit(program.Main(ctx, os.Args[1:]))
//
// A flag is written -x or --x, with its value behind = or as the next word, with
// - or _ between its words, before or behind the command; -- ends the flags. A
// mistake says what was most likely meant and ends with code 64. Help that was
// asked for goes to standard output and ends with 0.
//
// Foreign text, such as what a server was sent, is shown through Escape and
// Table, so that it cannot act on the terminal.
package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"github.com/rea-agent/rea/internal/near"
)

// A Program is a tree of commands.
type Program struct {
	Name, Summary string
	Commands      []*Command
	Default       string    // the command to run where none is named; may be empty
	Flags         []Flag    // of every command
	Keys          []Flag    // more of those, kept apart in the help: the keys of the configuration
	Examples      []Example // of the program as a whole

	Stdin          io.Reader // os.Stdin and so on where nil
	Stdout, Stderr io.Writer
}

// A Command does one thing, or has commands below it.
type Command struct {
	Name, Summary string
	About         string   // more than the summary, for its help; may be empty
	Args          string   // what may follow: "[FILE …]"; empty where nothing may
	Choices       []string // all first arguments there are, for completions; may be empty
	Flags         []Flag   // of this command alone
	Examples      []Example
	Commands      []*Command
	Run           func(ctx context.Context, in *Invocation) error
}

// An Example is a command line, without the name of the program, and what it is for.
type Example struct{ Line, Tells string }

// An Invocation is a command line on its way into a command.
type Invocation struct {
	Args           []string // what is no flag
	Stdin          io.Reader
	Stdout, Stderr io.Writer
}

// Main runs the command that args name, and returns the code to exit with. An
// error is shown on standard error first.
func (p *Program) Main(ctx context.Context, args []string) int {
	in := &Invocation{Stdin: p.Stdin, Stdout: p.Stdout, Stderr: p.Stderr}
	if in.Stdin == nil {
		in.Stdin = os.Stdin
	}
	if in.Stdout == nil {
		in.Stdout = os.Stdout
	}
	if in.Stderr == nil {
		in.Stderr = os.Stderr
	}
	err := p.run(ctx, args, in)
	if err != nil {
		p.complain(in.Stderr, err)
	}
	return Code(err)
}

// complain shows an error as "rea-agent: what: why". One of many lines, as that
// of a configuration, stands below the name.
func (p *Program) complain(w io.Writer, err error) {
	text := EscapeLines(err.Error())
	if strings.Contains(text, "\n") {
		text = "\n" + text
	} else {
		text = " " + text
	}
	fmt.Fprintf(w, "%s:%s\n", p.Name, text) // to whom could its error be told?
	if e, ok := errors.AsType[*Error](err); ok && e.Fix != "" {
		fmt.Fprintf(w, "  %s\n", EscapeLines(e.Fix))
	}
}

func (p *Program) run(ctx context.Context, args []string, in *Invocation) error {
	line, err := p.parse(args)
	if err != nil {
		return err
	}
	path := line.path
	switch {
	case line.version:
		return p.version(in.Stdout)
	case line.help:
		return p.help(in.Stdout, path)
	case len(path) == 0 || path[len(path)-1].Run == nil:
		if err := p.help(in.Stderr, path); err != nil {
			return err
		}
		return usagef("", "name a command")
	}
	for _, set := range line.flags {
		if err := set.flag.Set(set.written, set.value); err != nil {
			return usagef("", "%s %w", set.written, err)
		}
	}
	in.Args = line.words
	return path[len(path)-1].Run(ctx, in)
}

// A line is a command line taken apart.
type line struct {
	path          []*Command // from the first level down to the one to run
	words         []string   // arguments of that one
	flags         []given
	help, version bool
}

type given struct {
	flag           *Flag
	written, value string
}

// parse takes the words first, since what a flag means can depend on a command
// that stands behind it, and then sees that each flag is one of the command's.
func (p *Program) parse(args []string) (*line, error) {
	l := &line{}
	var words []string
	for i := 0; i < len(args); i++ {
		arg := args[i]
		if arg == "--" {
			words = append(words, args[i+1:]...)
			break
		}
		if len(arg) < 2 || arg[0] != '-' {
			words = append(words, arg)
			continue
		}
		name, value, hasValue := strings.Cut(strings.TrimLeft(arg, "-"), "=")
		switch {
		case hasValue:
		case name == "help" || name == "h":
			l.help = true
			continue
		case name == "version":
			l.version = true
			continue
		}
		f := p.anywhere(name)
		if f == nil {
			return nil, p.unknownFlag(arg, name, p.every())
		}
		written := "--" + name
		if !hasValue {
			value = "true"
			if f.Arg != "" {
				if i++; i >= len(args) {
					return nil, usagef("write "+f.spell(), "%s wants a value", written)
				}
				if value = args[i]; strings.HasPrefix(value, "--") && p.anywhere(value[2:]) != nil {
					return nil, usagef("write "+f.spell(), "%s wants a value", written)
				}
			}
		}
		l.flags = append(l.flags, given{f, written, value})
	}
	if err := p.descend(l, words); err != nil {
		return nil, err
	}
	return l, p.belong(l)
}

// descend follows the words down the tree; what is left are arguments.
func (p *Program) descend(l *line, words []string) error {
	below := p.commands()
	if len(words) > 0 && words[0] == "help" && find(below, "help") == nil {
		l.help, words = true, words[1:]
	}
	for len(words) > 0 && len(below) > 0 {
		c := find(below, words[0])
		if c == nil {
			return p.unknownCommand(l, words[0], below)
		}
		l.path, words, below = append(l.path, c), words[1:], c.Commands
	}
	if len(l.path) == 0 && p.Default != "" && !l.help {
		l.path = append(l.path, find(p.Commands, p.Default))
	}
	if len(words) > 0 && !l.help && (len(l.path) == 0 || l.path[len(l.path)-1].Args == "") {
		return usagef(p.hint(l.path), "%s takes no argument %q", p.title(l.path), words[0])
	}
	l.words = words
	return nil
}

// belong sees that each flag is one of the command that was named. The same
// name may be a flag of two commands, so it is looked up again.
func (p *Program) belong(l *line) error {
	own := p.of(l.path)
	for i, g := range l.flags {
		name := strings.TrimPrefix(g.written, "--")
		f := lookup(own, name)
		if f == nil && !l.help && !l.version {
			return p.unknownFlag(g.written, name, own)
		}
		l.flags[i].flag = f
	}
	return nil
}

// of lists the flags that stand behind a path of commands.
func (p *Program) of(path []*Command) []*Flag {
	var all []*Flag
	for _, c := range path {
		all = refer(all, c.Flags)
	}
	return refer(refer(all, p.Flags), p.Keys)
}

func refer(to []*Flag, flags []Flag) []*Flag {
	for i := range flags {
		to = append(to, &flags[i])
	}
	return to
}

// every lists the flags of the whole tree.
func (p *Program) every() []*Flag {
	all := p.of(nil)
	p.walk(func(path []*Command) { all = refer(all, path[len(path)-1].Flags) })
	return all
}

// anywhere finds a flag by name in the whole tree. All of one name agree on
// whether they take a value; a test of the tree sees to that (Check).
func (p *Program) anywhere(name string) *Flag { return lookup(p.every(), name) }

func lookup(flags []*Flag, name string) *Flag {
	for _, f := range flags {
		if f.is(name) {
			return f
		}
	}
	return nil
}

func find(commands []*Command, name string) *Command {
	for _, c := range commands {
		if c.Name == name {
			return c
		}
	}
	return nil
}

// walk visits every command with the path to it, a parent before its children.
func (p *Program) walk(visit func(path []*Command)) {
	var down func(path, below []*Command)
	down = func(path, below []*Command) {
		for _, c := range below {
			at := append(slices.Clone(path), c)
			visit(at)
			down(at, c.Commands)
		}
	}
	down(nil, p.commands())
}

// Check looks for mistakes in the tree itself. It is for tests.
func (p *Program) Check() error {
	if p.Default != "" && find(p.Commands, p.Default) == nil {
		return fmt.Errorf("the default command %q is none", p.Default)
	}
	var err error
	for _, f := range p.every() {
		if same := p.anywhere(f.Name); (same.Arg == "") != (f.Arg == "") {
			err = errors.Join(err, fmt.Errorf("flag --%s has a value in one command and none in another", f.Name))
		}
	}
	p.walk(func(path []*Command) {
		if c := path[len(path)-1]; (c.Run == nil) == (len(c.Commands) == 0) {
			err = errors.Join(err, fmt.Errorf("%s must either run or have commands", p.title(path)))
		}
	})
	return err
}

func (p *Program) unknownCommand(l *line, name string, below []*Command) error {
	names := make([]string, len(below))
	for i, c := range below {
		names[i] = c.Name
	}
	fix := p.hint(l.path)
	if meant := near.Name(name, names); meant != "" {
		fix = fmt.Sprintf("did you mean %s?", strings.TrimPrefix(p.title(l.path)+" "+meant, " "))
	}
	return usagef(fix, "there is no command %q", name)
}

func (p *Program) unknownFlag(written, name string, known []*Flag) error {
	var names []string
	for _, f := range known {
		names = append(names, canonical(f.Name))
	}
	fix := p.hint(nil)
	if meant := near.Name(canonical(name), append(names, "help", "version")); meant != "" {
		fix = "did you mean --" + meant + "?"
	}
	written, _, _ = strings.Cut(written, "=")
	return usagef(fix, "there is no flag %s", written)
}

// title names a command in full: rea-agent config check.
func (p *Program) title(path []*Command) string {
	name := p.Name
	for _, c := range path {
		name += " " + c.Name
	}
	return name
}

func (p *Program) hint(path []*Command) string {
	return "see " + p.title(path) + " --help"
}
