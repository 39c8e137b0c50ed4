// Package procfs reads the kernel's text files again and again: those of /proc
// and /sys, which the kernel writes at the moment of reading.
//
// A File stays open, because opening costs more than reading, and is read from
// its start into a buffer of the caller's, which grows to what the file needs
// and no more. In the steady state a reading allocates nothing:
//
//	stat := procfs.File{Path: "/proc/stat"}
//	b, err := stat.Read(&buf) // good until buf is used again
//	for len(b) > 0 {
//		var line []byte
//		line, b = procfs.Line(b)
//		key, rest := procfs.Field(line)
//		…
//	}
//
// Each open File is a descriptor: who opens one for everything of a kind bounds
// their number, and closes them. Files are there on Linux only, parsers on every
// system, so that they are tested on any.
package procfs

import (
	"bytes"
	"errors"
	"math"
	"time"
)

// Line cuts the first line off b, without its end.
func Line(b []byte) (line, rest []byte) {
	if i := bytes.IndexByte(b, '\n'); i >= 0 {
		return b[:i], b[i+1:]
	}
	return b, nil
}

// Field cuts the next word off a line, empty at the end of it. Words are parted
// by spaces and tabs.
func Field(line []byte) (word, rest []byte) {
	start := 0
	for start < len(line) && (line[start] == ' ' || line[start] == '\t') {
		start++
	}
	end := start
	for end < len(line) && line[end] != ' ' && line[end] != '\t' && line[end] != '\n' {
		end++
	}
	return line[start:end], line[end:]
}

// Uint reads decimal digits and nothing else, and reports whether it is a number
// that fits.
func Uint(b []byte) (uint64, bool) {
	n := uint64(0)
	for _, c := range b {
		d := uint64(c - '0')
		if c < '0' || c > '9' || n > (math.MaxUint64-d)/10 {
			return 0, false
		}
		n = n*10 + d
	}
	return n, len(b) > 0
}

// BootTime finds when the machine was started in /proc/stat. The kernel computes
// it from its own clocks, in whole seconds (proc_stat(5)).
func BootTime(stat []byte) (time.Time, error) {
	const most = 1 << 36 // a year of four digits
	_, rest, _ := bytes.Cut(stat, []byte("\nbtime "))
	line, _ := Line(rest)
	n, ok := Uint(line)
	if !ok || n > most {
		return time.Time{}, errors.New("parse stat: no btime")
	}
	return time.Unix(int64(n), 0), nil
}
