package cli

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strings"
	"unicode/utf8"
)

// commands are those of the program and the two that every program has.
func (p *Program) commands() []*Command {
	own := slices.Clone(p.Commands)
	if len(p.Keys) > 0 {
		own = append(own, &Command{
			Name: "keys", Summary: "list the keys of the configuration, which are flags too",
			Run: func(_ context.Context, in *Invocation) error { return p.keys(in.Stdout) },
		})
	}
	return append(own, &Command{
		Name: "completion", Summary: "print completions for a shell", Args: "bash|zsh|fish|powershell",
		Choices: []string{"bash", "zsh", "fish", "powershell"},
		About:   "Prints a script that makes the shell complete commands, flags and values.",
		Examples: []Example{
			{"completion bash > /etc/bash_completion.d/" + p.Name, "for all users of bash"},
			{"completion zsh > \"${fpath[1]}/_" + p.Name + "\"", "for zsh"},
			{"completion fish > ~/.config/fish/completions/" + p.Name + ".fish", "for fish"},
			{"completion powershell | Out-String | Invoke-Expression", "for this PowerShell"},
		},
		Run: p.completion,
	})
}

// help writes what a command, or with an empty path the program, is for.
func (p *Program) help(w io.Writer, path []*Command) error {
	var b strings.Builder
	below, examples, flags := p.commands(), p.Examples, []Flag(nil)
	if len(path) == 0 {
		fmt.Fprintf(&b, "%s %s.\n\n", p.Name, p.Summary)
		fmt.Fprintf(&b, "usage: %s [COMMAND] [FLAG …]\n", p.Name)
	} else {
		c := path[len(path)-1]
		below, examples, flags = c.Commands, c.Examples, c.Flags
		fmt.Fprintf(&b, "%s: %s.\n\n", p.title(path), c.Summary)
		fmt.Fprintf(&b, "usage: %s\n", p.usage(path))
		if c.About != "" {
			fmt.Fprintf(&b, "\n%s\n", c.About)
		}
	}
	p.writeCommands(&b, below, len(path) == 0)
	writeFlags(&b, "flags", flags)
	common := append(slices.Clone(p.Flags), Flag{Name: "help", Short: "h", Usage: "Show this and exit."})
	if len(path) == 0 {
		common = append(common, Flag{Name: "version", Usage: "Show version and build, and exit."})
	}
	title := "flags of every command"
	if len(path) == 0 {
		title = "flags"
	}
	writeFlags(&b, title, common)
	if len(p.Keys) > 0 {
		fmt.Fprintf(&b, "\nEvery key of the configuration is a flag too: see %s keys.\n", p.Name)
	}
	if len(examples) > 0 {
		b.WriteString("\nexamples:\n")
		for _, e := range examples {
			fmt.Fprintf(&b, "  # %s\n  %s\n", e.Tells, strings.TrimSpace(p.Name+" "+e.Line))
		}
	}
	_, err := io.WriteString(w, b.String())
	return err
}

func (p *Program) usage(path []*Command) string {
	s, c := p.title(path), path[len(path)-1]
	if len(c.Commands) > 0 {
		return s + " COMMAND [FLAG …]"
	}
	if s += " [FLAG …]"; c.Args != "" {
		s += " " + c.Args
	}
	return s
}

func (p *Program) writeCommands(b *strings.Builder, commands []*Command, top bool) {
	if len(commands) == 0 {
		return
	}
	b.WriteString("\ncommands:\n")
	var rows [][2]string
	for _, c := range commands {
		summary := c.Summary
		if top && c.Name == p.Default {
			summary += " (the default)"
		}
		rows = append(rows, [2]string{c.Name, summary})
	}
	writeRows(b, rows)
}

func writeFlags(b *strings.Builder, title string, flags []Flag) {
	if len(flags) == 0 {
		return
	}
	b.WriteString("\n" + title + ":\n")
	var rows [][2]string
	for _, f := range flags {
		usage := f.Usage
		if f.Arg != "" && len(f.Choices) > 0 {
			usage += " One of: " + strings.Join(f.Choices, ", ") + "."
		}
		rows = append(rows, [2]string{f.spell(), usage})
	}
	writeRows(b, rows)
}

// writeRows aligns the right column, and wraps it at 100.
func writeRows(b *strings.Builder, rows [][2]string) {
	left := 0
	for _, r := range rows {
		left = max(left, utf8.RuneCountInString(r[0]))
	}
	left = min(left, 40) + 4
	for _, r := range rows {
		pad := left - 2 - utf8.RuneCountInString(r[0])
		fmt.Fprintf(b, "  %s", r[0])
		if pad < 2 {
			fmt.Fprintf(b, "\n%*s", left, "")
			pad = 0
		}
		fmt.Fprintf(b, "%*s%s\n", pad, "", wrap(r[1], left, 100))
	}
}

func wrap(text string, indent, width int) string {
	var b strings.Builder
	column := indent
	for i, word := range strings.Fields(text) {
		n := utf8.RuneCountInString(word)
		switch {
		case i == 0:
		case column+1+n > width:
			fmt.Fprintf(&b, "\n%*s", indent, "")
			column = indent
		default:
			b.WriteByte(' ')
			column++
		}
		b.WriteString(word)
		column += n
	}
	return b.String()
}

// keys writes the flags that are keys of the configuration.
func (p *Program) keys(w io.Writer) error {
	var b strings.Builder
	fmt.Fprintf(&b, "Every key can stand in the file, in the environment and on the command line of %s;\nthe command line goes first.\n", p.Name)
	writeFlags(&b, "keys", p.Keys)
	_, err := io.WriteString(w, b.String())
	return err
}
