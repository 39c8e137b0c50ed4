// Command resource gives a Windows program its version, its manifest and its
// icon, and shows those of one:
//
//	resource -name rea-agent -about "REA Endpoint Agent" -version v0.1.0 rea-agent.exe
//	resource -show rea-agent.exe
//	resource -icon rea.ico
//	resource -number v0.1.0
//
// It appends a section to the program that the Go linker made, so nothing of it
// lies in the source tree, where a stale one would go into the next build unseen.
// The same program with the same flags becomes the same bytes, on any machine.
package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
)

func main() {
	if err := run(os.Args[1:], os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "resource:", err)
		os.Exit(1)
	}
}

func run(args []string, out io.Writer) error {
	flags := flag.NewFlagSet("resource", flag.ContinueOnError)
	var p program
	flags.StringVar(&p.name, "name", "", "the name of the program, without .exe")
	flags.StringVar(&p.about, "about", "", "what people see it as in the task manager")
	flags.StringVar(&p.version, "version", "", "its version, as git describe says it")
	show := flags.Bool("show", false, "show what is in the program")
	icon := flags.String("icon", "", "write the icon to this file")
	number := flags.String("number", "", "print the number that Windows compares, of this version")
	if err := flags.Parse(args); err != nil {
		return err
	}
	switch {
	case *icon != "":
		return os.WriteFile(*icon, encodeIcon(), 0o644)
	case *number != "":
		_, err := fmt.Fprintln(out, numberOf(*number))
		return err
	case flags.NArg() != 1:
		return errors.New("want one program")
	case *show:
		return tell(out, flags.Arg(0))
	case p.name == "" || p.about == "" || p.version == "":
		return errors.New("want -name, -about and -version")
	}
	return p.into(flags.Arg(0))
}

// A program is what Windows shows of a program.
type program struct{ name, about, version string }

// into gives the program in file its resources.
func (p program) into(file string) error {
	exe, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	exe, err = add(exe, p.resources())
	if err != nil {
		return fmt.Errorf("%s: %w", file, err)
	}
	return os.WriteFile(file, exe, 0o755)
}

func (p program) resources() []resource {
	list := icons()
	return append(list,
		resource{kindVersion, 1, p.versionInfo()},
		resource{kindManifest, 1, manifest})
}

func tell(out io.Writer, file string) error {
	found, err := read(file)
	if err != nil {
		return err
	}
	for _, r := range found {
		switch r.kind {
		case kindVersion:
			info, err := parseVersion(r.data)
			if err != nil {
				return fmt.Errorf("%s: %w", file, err)
			}
			for _, line := range info {
				fmt.Fprintf(out, "%s=%s\n", line[0], line[1])
			}
		case kindManifest:
			fmt.Fprintf(out, "Manifest=%d bytes\n", len(r.data))
		case kindIcon:
			fmt.Fprintf(out, "Icon=%d bytes\n", len(r.data))
		}
	}
	return nil
}
