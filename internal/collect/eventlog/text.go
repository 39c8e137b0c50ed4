package eventlog

import (
	"bytes"
	"strconv"
	"time"
	"unicode/utf8"
)

// A span is a part of the record's texts: below len(xml) of its XML, above that
// of what was resolved.
type span struct{ start, end int }

func (s span) empty() bool { return s.start == s.end }

// copied puts a text behind those that were resolved.
func (s *scanner) copied(b []byte) span {
	start := len(s.b) + len(s.resolved)
	s.resolved = append(s.resolved, b...)
	return span{start, start + len(b)}
}

// join returns two texts that follow on each other as one.
func (s *scanner) join(a, b span) span {
	switch {
	case a.empty():
		return b
	case b.empty():
		return a
	}
	if a.end != len(s.b)+len(s.resolved) {
		a = s.copied(s.bytes(a))
	}
	return span{a.start, s.copied(s.bytes(b)).end}
}

// resolve returns the text with its references (&lt; and the like) replaced. What
// is no reference stays as it is.
func (s *scanner) resolve(t span) span {
	b := s.b[t.start:t.end]
	n := bytes.IndexByte(b, '&')
	if n < 0 {
		return t
	}
	start := len(s.resolved)
	for n >= 0 {
		s.resolved = append(s.resolved, b[:n]...)
		r, size := reference(b[n:])
		s.resolved = utf8.AppendRune(s.resolved, r)
		b = b[n+size:]
		n = bytes.IndexByte(b, '&')
	}
	s.resolved = append(s.resolved, b...)
	return span{len(s.b) + start, len(s.b) + len(s.resolved)}
}

// reference reads the reference at the start of b, which begins with &.
func reference(b []byte) (r rune, size int) {
	end := bytes.IndexByte(b[:min(len(b), 12)], ';')
	if end < 0 {
		return '&', 1
	}
	switch name := b[1:end]; string(name) {
	case "lt":
		return '<', end + 1
	case "gt":
		return '>', end + 1
	case "amp":
		return '&', end + 1
	case "apos":
		return '\'', end + 1
	case "quot":
		return '"', end + 1
	default:
		if len(name) < 2 || name[0] != '#' {
			return '&', 1
		}
		digits, base := name[1:], 10
		if digits[0] == 'x' || digits[0] == 'X' {
			digits, base = digits[1:], 16
		}
		n, err := strconv.ParseUint(string(digits), base, 32)
		if err != nil {
			return '&', 1
		}
		if n > utf8.MaxRune || !utf8.ValidRune(rune(n)) {
			return utf8.RuneError, end + 1
		}
		return rune(n), end + 1
	}
}

// number reads a whole number as Windows renders it: 4624, 0x10.
func number(s string) (uint64, error) {
	if len(s) > 2 && s[0] == '0' && (s[1] == 'x' || s[1] == 'X') {
		return strconv.ParseUint(s[2:], 16, 64)
	}
	return strconv.ParseUint(s, 10, 64)
}

// instant reads a time as Windows renders it, 2018-08-05T10:34:37.552695700Z,
// which time.Parse takes four times as long for.
func instant(s string) (time.Time, error) {
	if len(s) < len("2006-01-02T15:04:05Z") || s[len(s)-1] != 'Z' || s[4] != '-' || s[7] != '-' || s[10] != 'T' || s[13] != ':' || s[16] != ':' {
		return time.Parse(time.RFC3339Nano, s)
	}
	year, ok1 := digits(s[:4])
	month, ok2 := digits(s[5:7])
	day, ok3 := digits(s[8:10])
	hour, ok4 := digits(s[11:13])
	minute, ok5 := digits(s[14:16])
	second, ok6 := digits(s[17:19])
	fraction := s[19 : len(s)-1]
	nano, ok7 := 0, true
	if fraction != "" {
		if fraction[0] != '.' || len(fraction) > 10 {
			return time.Parse(time.RFC3339Nano, s)
		}
		nano, ok7 = digits(fraction[1:])
		for range 10 - len(fraction) {
			nano *= 10
		}
	}
	t := time.Date(year, time.Month(month), day, hour, minute, second, nano, time.UTC)
	if !ok1 || !ok2 || !ok3 || !ok4 || !ok5 || !ok6 || !ok7 || t.Month() != time.Month(month) || t.Day() != day || t.Hour() != hour || t.Minute() != minute || t.Second() != second {
		return time.Parse(time.RFC3339Nano, s) // which says what is wrong
	}
	return t, nil
}

func digits(s string) (n int, ok bool) {
	for _, c := range []byte(s) {
		if c < '0' || c > '9' {
			return 0, false
		}
		n = n*10 + int(c-'0')
	}
	return n, s != ""
}
