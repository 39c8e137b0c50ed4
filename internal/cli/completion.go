package cli

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strings"
)

// completion prints the script of a shell. The scripts hold the whole tree as
// tables, so that a shell never has to start the program to complete.
func (p *Program) completion(_ context.Context, in *Invocation) error {
	shells := map[string]func() string{"bash": p.bash, "zsh": p.zsh, "fish": p.fish, "powershell": p.powershell}
	if len(in.Args) != 1 || shells[in.Args[0]] == nil {
		return usagef("write "+p.Name+" completion bash", "name one shell: bash, zsh, fish or powershell")
	}
	_, err := io.WriteString(in.Stdout, shells[in.Args[0]]())
	return err
}

// A place is where completion happens: behind a path of commands.
type place struct {
	path  string   // "config check"; empty at the top
	words []string // commands or arguments that may follow
	flags []*Flag
}

func (p *Program) places() []place {
	top := place{flags: p.of(nil)}
	for _, c := range p.commands() {
		top.words = append(top.words, c.Name)
	}
	if d := find(p.Commands, p.Default); d != nil {
		top.flags = p.of([]*Command{d})
	}
	all := []place{top}
	p.walk(func(path []*Command) {
		at := place{path: strings.TrimPrefix(p.title(path), p.Name+" "), flags: p.of(path)}
		last := path[len(path)-1]
		at.words = append(at.words, last.Choices...)
		for _, c := range last.Commands {
			at.words = append(at.words, c.Name)
		}
		all = append(all, at)
	})
	return all
}

func (at place) flagNames() []string {
	names := []string{"--help"}
	for _, f := range at.flags {
		names = append(names, "--"+f.Name)
	}
	slices.Sort(names)
	return names
}

// values lists the flags of the tree that take a value, each once, by name.
func (p *Program) values() []*Flag {
	var all []*Flag
	for _, f := range p.every() {
		if f.Arg != "" && !slices.ContainsFunc(all, func(g *Flag) bool { return g.Name == f.Name }) {
			all = append(all, f)
		}
	}
	slices.SortFunc(all, func(a, b *Flag) int { return strings.Compare(a.Name, b.Name) })
	return all
}

// quoted puts text in the single quotes of a POSIX shell.
func quoted(s string) string { return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'" }

func (p *Program) bash() string {
	var b strings.Builder
	fmt.Fprintf(&b, "# bash completion of %[1]s; made by: %[1]s completion bash\n_%[2]s() {\n", p.Name, strings.ReplaceAll(p.Name, "-", "_"))
	b.WriteString(`  local cur="${COMP_WORDS[COMP_CWORD]}" prev="${COMP_WORDS[COMP_CWORD-1]}" path='' word i
  # readline parts --flag=value at the sign
  if [[ $cur == '=' ]]; then cur=''; elif [[ $prev == '=' ]]; then prev="${COMP_WORDS[COMP_CWORD-2]}"; fi
  COMPREPLY=()
  case "$prev" in
`)
	var free []string
	for _, f := range p.values() {
		switch {
		case len(f.Choices) > 0:
			fmt.Fprintf(&b, "    --%s) COMPREPLY=($(compgen -W %s -- \"$cur\")); return ;;\n", f.Name, quoted(strings.Join(f.Choices, " ")))
		case f.Path:
			fmt.Fprintf(&b, "    --%s) COMPREPLY=($(compgen -f -- \"$cur\")); return ;;\n", f.Name)
		default:
			free = append(free, "--"+f.Name)
		}
	}
	if len(free) > 0 {
		fmt.Fprintf(&b, "    %s) return ;;\n", strings.Join(free, "|"))
	}
	b.WriteString(`  esac
  for ((i = 1; i < COMP_CWORD; i++)); do
    word="${COMP_WORDS[i]}"
    case "${path:+$path }$word" in
`)
	places := p.places()
	for _, at := range places[1:] {
		fmt.Fprintf(&b, "      %s) path=%s ;;\n", quoted(at.path), quoted(at.path))
	}
	b.WriteString("    esac\n  done\n  local words='' flags=''\n  case \"$path\" in\n")
	for _, at := range places {
		fmt.Fprintf(&b, "    %s) words=%s; flags=%s ;;\n", quoted(at.path),
			quoted(strings.Join(at.words, " ")), quoted(strings.Join(at.flagNames(), " ")))
	}
	b.WriteString("  esac\n  if [[ $cur == -* ]]; then words=$flags; fi\n  COMPREPLY=($(compgen -W \"$words\" -- \"$cur\"))\n}\n")
	fmt.Fprintf(&b, "complete -o default -F _%s %s\n", strings.ReplaceAll(p.Name, "-", "_"), p.Name)
	return b.String()
}

func (p *Program) zsh() string {
	var b strings.Builder
	fmt.Fprintf(&b, "#compdef %[1]s\n# zsh completion of %[1]s; made by: %[1]s completion zsh\n_%[1]s() {\n", p.Name)
	b.WriteString(`  local cur="${words[CURRENT]}" prev="${words[CURRENT-1]}" at='' word
  case "$prev" in
`)
	for _, f := range p.values() {
		switch {
		case len(f.Choices) > 0:
			fmt.Fprintf(&b, "    --%s) compadd -- %s; return ;;\n", f.Name, quoteAll(f.Choices))
		case f.Path:
			fmt.Fprintf(&b, "    --%s) _files; return ;;\n", f.Name)
		default:
			fmt.Fprintf(&b, "    --%s) return ;;\n", f.Name)
		}
	}
	b.WriteString("  esac\n  for word in \"${(@)words[2,CURRENT-1]}\"; do\n    case \"${at:+$at }$word\" in\n")
	places := p.places()
	for _, at := range places[1:] {
		fmt.Fprintf(&b, "      %s) at=%s ;;\n", quoted(at.path), quoted(at.path))
	}
	b.WriteString("    esac\n  done\n  case \"$at\" in\n")
	for _, at := range places {
		fmt.Fprintf(&b, "    %s)\n      if [[ $cur == -* ]]; then compadd -- %s\n", quoted(at.path), quoteAll(at.flagNames()))
		if len(at.words) > 0 {
			fmt.Fprintf(&b, "      else compadd -- %s\n", quoteAll(at.words))
		} else {
			b.WriteString("      else _files\n")
		}
		b.WriteString("      fi ;;\n")
	}
	// A file in fpath is the body of the function of its name; elsewhere it is read once.
	fmt.Fprintf(&b, "  esac\n}\nif [[ ${funcstack[1]} == _%[1]s ]]; then _%[1]s \"$@\"; else compdef _%[1]s %[1]s; fi\n", p.Name)
	return b.String()
}

func quoteAll(words []string) string {
	all := make([]string, len(words))
	for i, w := range words {
		all[i] = quoted(w)
	}
	return strings.Join(all, " ")
}

func (p *Program) fish() string {
	var b strings.Builder
	fmt.Fprintf(&b, "# fish completion of %[1]s; made by: %[1]s completion fish\n", p.Name)
	// In single quotes fish knows two escapes: \' and \\.
	quote := func(s string) string { return "'" + strings.NewReplacer(`\`, `\\`, "'", `\'`).Replace(s) + "'" }
	fmt.Fprintf(&b, "complete -c %s -f\n", p.Name)
	line := func(condition, rest string) {
		if condition != "" {
			condition = " -n " + quote(condition)
		}
		fmt.Fprintf(&b, "complete -c %s%s %s\n", p.Name, condition, rest)
	}
	flag := func(condition string, f *Flag) {
		rest := "-l " + f.Name + " -d " + quote(firstSentence(f.Usage))
		if f.Short != "" {
			rest = "-s " + f.Short + " " + rest
		}
		switch {
		case len(f.Choices) > 0 && f.Arg != "":
			rest += " -x -a " + quote(strings.Join(f.Choices, " "))
		case f.Path:
			rest += " -r -F"
		case f.Arg != "":
			rest += " -x"
		}
		line(condition, rest)
	}
	line("", "-s h -l help -d 'Show this and exit'")
	for _, f := range p.of(nil) {
		flag("", f)
	}
	for _, c := range p.commands() {
		line("__fish_use_subcommand", "-a "+c.Name+" -d "+quote(c.Summary))
	}
	p.walk(func(path []*Command) {
		seen := make([]string, len(path))
		for i, c := range path {
			seen[i] = "__fish_seen_subcommand_from " + c.Name
		}
		condition, last := strings.Join(seen, "; and "), path[len(path)-1]
		for i := range last.Flags {
			flag(condition, &last.Flags[i])
		}
		for _, c := range last.Commands {
			line(condition, "-a "+c.Name+" -d "+quote(c.Summary))
		}
		if len(last.Choices) > 0 {
			line(condition, "-a "+quote(strings.Join(last.Choices, " ")))
		}
	})
	return b.String()
}

func firstSentence(s string) string {
	s, _, _ = strings.Cut(s, ". ")
	return strings.TrimSuffix(s, ".")
}

func (p *Program) powershell() string {
	quote := func(s string) string { return "'" + strings.ReplaceAll(s, "'", "''") + "'" }
	list := func(words []string) string {
		all := make([]string, len(words))
		for i, w := range words {
			all[i] = quote(w)
		}
		return "@(" + strings.Join(all, ", ") + ")"
	}
	var b strings.Builder
	fmt.Fprintf(&b, "# PowerShell completion of %[1]s; made by: %[1]s completion powershell\n", p.Name)
	fmt.Fprintf(&b, "Register-ArgumentCompleter -Native -CommandName %s -ScriptBlock {\n", quote(p.Name))
	b.WriteString("  param($wordToComplete, $commandAst, $cursorPosition)\n  $words = @{\n")
	places := p.places()
	for _, at := range places {
		fmt.Fprintf(&b, "    %s = %s\n", quote(at.path), list(at.words))
	}
	b.WriteString("  }\n  $flags = @{\n")
	for _, at := range places {
		fmt.Fprintf(&b, "    %s = %s\n", quote(at.path), list(at.flagNames()))
	}
	b.WriteString("  }\n  $values = @{\n")
	for _, f := range p.values() {
		fmt.Fprintf(&b, "    %s = %s\n", quote("--"+f.Name), list(f.Choices))
	}
	b.WriteString(`  }
  $path = ''
  $previous = ''
  foreach ($element in $commandAst.CommandElements | Select-Object -Skip 1) {
    if ($element.Extent.EndOffset -ge $cursorPosition) { break }
    $previous = $element.Extent.Text
    $next = "$path $previous".Trim()
    if ($words.ContainsKey($next)) { $path = $next }
  }
  if ($values.ContainsKey($previous)) { $found = $values[$previous] }
  elseif ($wordToComplete.StartsWith('-')) { $found = $flags[$path] }
  else { $found = $words[$path] }
  $found | Where-Object { $_.StartsWith($wordToComplete) } | ForEach-Object {
    [System.Management.Automation.CompletionResult]::new($_, $_, 'ParameterValue', $_)
  }
}
`)
	return b.String()
}
