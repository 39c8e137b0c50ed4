package config

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"unicode"
)

// A Problem is one thing that is wrong, where it stands, and what would be right.
type Problem struct {
	Key       string // "" where it is about no single key
	Where     Origin // zero where nothing was written that could be shown
	What, Fix string
}

// Problems are all that is wrong with a configuration. As an error it is many
// lines, meant for people.
type Problems []Problem

func (ps Problems) Error() string {
	var b strings.Builder
	for _, p := range ps {
		p.write(&b)
	}
	return strings.TrimSuffix(b.String(), "\n")
}

// write shows the problem as
//
//	agent.toml:7:8: status.port: 70000 is out of range
//	  7 | port = 70000
//	    |        ^^^^^
//	  fix: write an integer from 1 to 65535
func (p Problem) write(b *strings.Builder) {
	var head []string
	if where := p.Where.place(); where != "" {
		head = append(head, where)
	}
	if p.Key != "" {
		head = append(head, p.Key)
	}
	fmt.Fprintln(b, plain(strings.Join(append(head, hide(p.What)), ": ")))
	if o := p.Where; o.source != "" {
		shown, caret := excerpt(o.source, o.Column-1, o.width)
		fmt.Fprintf(b, "%3d | %s\n", o.Line, shown)
		if caret != "" {
			fmt.Fprintf(b, "%*s | %s\n", max(3, len(strconv.Itoa(o.Line))), "", caret)
		}
	}
	if p.Fix != "" {
		fmt.Fprintf(b, "  fix: %s\n", plain(p.Fix))
	}
}

// credentials stand before the host of a URL.
var credentials = pattern(`//[^/@\s"']*@`)

func hide(s string) string {
	if !strings.Contains(s, "@") {
		return s
	}
	return credentials().ReplaceAllString(s, "//***@")
}

// pattern compiles an expression when it is first asked for: only a configuration
// with mistakes in it pays for that.
func pattern(s string) func() *regexp.Regexp {
	return sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(s) })
}

// excerpt makes a line of a file fit to be shown, with carets below what is at
// fault: width characters from column on. Tabs are kept, so that both line up.
func excerpt(line string, column, width int) (shown, caret string) {
	const most = 160
	runes := []rune(line)
	column = min(column, len(runes))
	lead := hide(string(runes[:column]))
	if len(runes) > most {
		runes = append(runes[:most:most], '…')
	}
	shown = plain(hide(string(runes)))
	if column > most {
		return shown, ""
	}
	blank := func(r rune) rune {
		if r == '\t' {
			return r
		}
		return ' '
	}
	return shown, strings.Map(blank, plain(lead)) + strings.Repeat("^", max(1, min(width, len(runes)-column)))
}

// plain replaces what a terminal would act on instead of showing.
func plain(s string) string {
	return strings.Map(func(r rune) rune {
		if r != '\t' && (unicode.IsControl(r) || unicode.Is(unicode.Cf, r)) {
			return unicode.ReplacementChar
		}
		return r
	}, s)
}
