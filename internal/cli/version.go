package cli

import (
	"fmt"
	"io"
	"runtime"
	"runtime/debug"
)

// The build sets these: go build -ldflags "-X github.com/rea-agent/rea/internal/cli.version=1.2.3
// -X github.com/rea-agent/rea/internal/cli.commit=0a1b2c3".
var version, commit string

// A Build tells what a binary was made of.
type Build struct {
	Version, Commit, Go, OS, Arch string
}

// ReadBuild returns the build of this binary. What the build did not set comes
// from what Go noted of it: the version of the module where it was installed
// as one, and the commit where it was built in a checkout.
func ReadBuild() Build {
	b := Build{Version: version, Commit: commit, Go: runtime.Version(), OS: runtime.GOOS, Arch: runtime.GOARCH}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		info = &debug.BuildInfo{}
	}
	if b.Version == "" {
		b.Version = info.Main.Version
	}
	if b.Version == "" || b.Version == "(devel)" {
		b.Version = "devel"
	}
	for _, s := range info.Settings {
		if s.Key == "vcs.revision" && b.Commit == "" {
			b.Commit = s.Value
		}
	}
	return b
}

func (b Build) String() string {
	s := b.Version
	if b.Commit != "" {
		s += " (" + b.Commit + ")"
	}
	return fmt.Sprintf("%s %s %s/%s", s, b.Go, b.OS, b.Arch)
}

func (p *Program) version(w io.Writer) error {
	_, err := fmt.Fprintf(w, "%s %s\n", p.Name, ReadBuild())
	return err
}
