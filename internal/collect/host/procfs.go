package host

import (
	"bytes"
	"errors"
	"strconv"
	"strings"

	"github.com/rea-agent/rea/internal/procfs"
)

// parseOSRelease reads /etc/os-release: assignments as a shell understands
// them, without expansion (os-release(5)).
func parseOSRelease(b []byte) OS {
	os := OS{Type: "linux", ID: "linux", Name: "Linux"} // the defaults of os-release(5)
	for line := range bytes.Lines(b) {
		key, value, ok := strings.Cut(strings.TrimSpace(string(line)), "=")
		if value = unquote(value); !ok || value == "" {
			continue
		}
		switch key {
		case "ID":
			os.ID = value
		case "NAME":
			os.Name = value
		case "VERSION_ID":
			os.Version = value
		case "BUILD_ID":
			os.Build = value
		}
	}
	return os
}

// unquote takes the quotes off a value, and the backslashes within double ones.
func unquote(s string) string {
	if len(s) < 2 || s[0] != s[len(s)-1] || s[0] != '"' && s[0] != '\'' {
		return s
	}
	inner := s[1 : len(s)-1]
	if s[0] == '\'' || !strings.Contains(inner, `\`) {
		return inner
	}
	var out strings.Builder
	for i := 0; i < len(inner); i++ {
		if inner[i] == '\\' && i+1 < len(inner) {
			i++
		}
		out.WriteByte(inner[i])
	}
	return out.String()
}

// parseUptime reads the first number of /proc/uptime, in seconds.
func parseUptime(b []byte) (float64, error) {
	field, _ := procfs.Field(b)
	up, err := strconv.ParseFloat(string(field), 64)
	if err != nil || !(up >= 0) {
		return 0, errors.New("parse uptime: no number")
	}
	return up, nil
}

// zoneName returns the name of the zone that /etc/localtime links to, or "".
func zoneName(target string) string {
	_, name, _ := strings.Cut(target, "zoneinfo/")
	name = strings.TrimPrefix(name, "posix/")
	return strings.TrimPrefix(name, "right/")
}

// architecture returns OpenTelemetry's name (host.arch) for what uname calls the
// machine, or that name itself where OpenTelemetry has none.
func architecture(machine string) string {
	switch {
	case machine == "x86_64":
		return "amd64"
	case machine == "aarch64" || machine == "aarch64_be":
		return "arm64"
	case len(machine) == 4 && machine[0] == 'i' && strings.HasSuffix(machine, "86"):
		return "x86"
	case strings.HasPrefix(machine, "arm"):
		return "arm32"
	case strings.HasPrefix(machine, "ppc64"):
		return "ppc64"
	}
	return machine
}
