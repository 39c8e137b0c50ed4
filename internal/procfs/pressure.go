package procfs

import (
	"bytes"
	"errors"
	"strconv"
)

// Pressure is how long tasks waited for something
// (Documentation/accounting/psi.rst).
type Pressure struct {
	Some    Stall // at least one task waited
	Full    Stall // all that were not idle waited
	HasFull bool  // the kernel tells it
}

// A Stall is one line of pressure.
type Stall struct {
	Avg10, Avg60, Avg300 float64 // share of the last so many seconds
	Total                float64 // seconds since boot
}

// ParsePressure reads a file of /proc/pressure. A line of another kind than
// those two is left alone.
func ParsePressure(b []byte) (p Pressure, err error) {
	hasSome := false
	for len(b) > 0 && err == nil {
		var line []byte
		line, b = Line(b)
		switch kind, rest := Field(line); string(kind) {
		case "some":
			p.Some, err = parseStall(rest)
			hasSome = true
		case "full":
			p.Full, err = parseStall(rest)
			p.HasFull = true
		}
	}
	if err == nil && !hasSome {
		err = errors.New("parse pressure: no line of some")
	}
	if err != nil {
		return Pressure{}, err
	}
	return p, nil
}

func parseStall(line []byte) (Stall, error) {
	var v [4]float64 // percent of time, and at last microseconds
	for i, name := range [...]string{"avg10", "avg60", "avg300", "total"} {
		var field []byte
		field, line = Field(line)
		key, value, _ := bytes.Cut(field, []byte("="))
		var err error
		if v[i], err = strconv.ParseFloat(string(value), 64); err != nil || string(key) != name || !(v[i] >= 0) {
			return Stall{}, errors.New("parse pressure: no " + name)
		}
	}
	return Stall{Avg10: v[0] / 1e2, Avg60: v[1] / 1e2, Avg300: v[2] / 1e2, Total: v[3] / 1e6}, nil
}
