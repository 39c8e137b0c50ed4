package cli

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// A Flag sets something when it stands on the command line. It is found by its
// name with any number of dashes before it, and with _ for -.
type Flag struct {
	Name    string // status-port, networking.endpoint
	Short   string // one letter, or empty
	Arg     string // what its value is, for the help: FILE, N; empty where it needs none
	Usage   string
	Choices []string // all values there are, for completions
	Path    bool     // the value is a file or a folder, for completions

	// Set takes the value, "true" where a flag without Arg had none. written is
	// the flag as it was given, --status_port.
	Set func(written, value string) error
}

// Switch is a flag that needs no value.
func Switch(p *bool, name, usage string) Flag {
	return Flag{Name: name, Usage: usage, Set: func(_, s string) error {
		b, err := strconv.ParseBool(s)
		if err != nil {
			return errors.New("wants true or false")
		}
		*p = b
		return nil
	}}
}

// Text is a flag with any value.
func Text(p *string, name, arg, usage string) Flag {
	return Flag{Name: name, Arg: arg, Usage: usage, Set: func(_, s string) error {
		*p = s
		return nil
	}}
}

// File is a flag with the path of a file or a folder.
func File(p *string, name, usage string) Flag {
	f := Text(p, name, "FILE", usage)
	f.Path = true
	return f
}

// List is a flag that may be given more than once, with one or more values
// divided by commas. The first one replaces what is in p.
func List(p *[]string, name, arg, usage string) Flag {
	given := false
	return Flag{Name: name, Arg: arg, Usage: usage, Set: func(_, s string) error {
		if !given {
			*p, given = nil, true
		}
		for each := range strings.SplitSeq(s, ",") {
			*p = append(*p, strings.TrimSpace(each))
		}
		return nil
	}}
}

// Number is a flag with an integer from low to high.
func Number(p *int, name string, low, high int, usage string) Flag {
	return Flag{Name: name, Arg: "N", Usage: usage, Set: func(_, s string) error {
		n, err := strconv.Atoi(s)
		if err != nil || n < low || n > high {
			return fmt.Errorf("wants an integer from %d to %d", low, high)
		}
		*p = n
		return nil
	}}
}

// Duration is a flag with a time like 90s or 5m.
func Duration(p *time.Duration, name, usage string) Flag {
	return Flag{Name: name, Arg: "TIME", Usage: usage, Set: func(_, s string) error {
		d, err := time.ParseDuration(s)
		if err != nil || d < 0 {
			return errors.New("wants a time like 90s, 5m or 24h")
		}
		*p = d
		return nil
	}}
}

// canonical writes a flag's name with the dash for both marks.
func canonical(name string) string { return strings.ReplaceAll(name, "_", "-") }

func (f *Flag) is(name string) bool {
	return canonical(f.Name) == canonical(name) || f.Short != "" && f.Short == name
}

// spell shows a flag with its value: -c, --config FILE.
func (f *Flag) spell() string {
	s := "--" + f.Name
	if f.Short != "" {
		s = "-" + f.Short + ", " + s
	}
	if f.Arg != "" {
		s += " " + f.Arg
	}
	return s
}
