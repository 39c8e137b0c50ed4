package evtx

import (
	"encoding/binary"
	"strconv"
	"unicode"
	"unicode/utf16"
	"unicode/utf8"
)

// mode says where in the XML a text stands.
type mode byte

const (
	inText        mode = iota // between tags, or in an attribute
	inCDATA                   // in a CDATA section
	inInstruction             // in a processing instruction
)

// appendUTF16 appends a UTF-16 text as UTF-8, escaped for where it stands. What
// XML cannot hold (control characters, halves of a pair) becomes U+FFFD.
func appendUTF16(out, b []byte, m mode) []byte {
	for i := 0; i+1 < len(b); i += 2 {
		c := rune(binary.LittleEndian.Uint16(b[i:]))
		if c < utf8.RuneSelf {
			if plain[c] {
				out = append(out, byte(c))
			} else {
				out = appendSpecial(out, c, m)
			}
			continue
		}
		if utf16.IsSurrogate(c) && i+3 < len(b) {
			if pair := utf16.DecodeRune(c, rune(binary.LittleEndian.Uint16(b[i+2:]))); pair != utf8.RuneError {
				out = utf8.AppendRune(out, pair)
				i += 2
				continue
			}
		}
		out = appendRune(out, c)
	}
	return out
}

// plain marks the ASCII characters that stand for themselves in any mode.
var plain = func() (p [utf8.RuneSelf]bool) {
	for c := range p {
		p[c] = c >= ' ' && c != '&' && c != '<' && c != '>' && c != '\'' && c != '"' || c == '\t'
	}
	return p
}()

func appendSpecial(out []byte, c rune, m mode) []byte {
	switch {
	case c == '>' && m == inCDATA && hasSuffix(out, "]]"):
		return append(out, "]]><![CDATA[>"...)
	case c == '>' && m == inInstruction && hasSuffix(out, "?"):
		return append(out, " >"...)
	case c < ' ' && c != '\r' && c != '\n':
		return appendRune(out, utf8.RuneError)
	case m != inText:
		return append(out, byte(c))
	}
	switch c {
	case '&':
		return append(out, "&amp;"...)
	case '<':
		return append(out, "&lt;"...)
	case '>':
		return append(out, "&gt;"...)
	case '\'':
		return append(out, "&apos;"...)
	case '"':
		return append(out, "&quot;"...)
	case '\r':
		return append(out, "&#13;"...)
	}
	return append(out, "&#10;"...)
}

func hasSuffix(out []byte, s string) bool {
	return len(out) >= len(s) && string(out[len(out)-len(s):]) == s
}

// appendRune appends a character that is not ASCII, if XML can hold it.
func appendRune(out []byte, c rune) []byte {
	if c == 0xfffe || c == 0xffff {
		c = utf8.RuneError
	}
	return utf8.AppendRune(out, c) // writes U+FFFD for half of a pair
}

func appendCharRef(out []byte, c rune) []byte {
	if c < ' ' && c != '\t' && c != '\r' && c != '\n' || utf16.IsSurrogate(c) || c >= 0xfffe {
		return appendRune(out, utf8.RuneError)
	}
	out = strconv.AppendInt(append(out, "&#"...), int64(c), 10)
	return append(out, ';')
}

// untilZeros cuts the zeros off that many programs log at the end of a string.
func untilZeros(b []byte) []byte {
	for len(b) >= 2 && b[len(b)-1]|b[len(b)-2] == 0 {
		b = b[:len(b)-2]
	}
	return b
}

// appendANSI appends a text in the code page of the machine that wrote it. The
// file does not name it, so it is read as Windows-1252, the most common one.
func appendANSI(out, b []byte) []byte {
	for len(b) > 0 && b[len(b)-1] == 0 {
		b = b[:len(b)-1]
	}
	for _, c := range b {
		switch {
		case c >= utf8.RuneSelf && c < 0xa0:
			out = appendRune(out, windows1252[c-utf8.RuneSelf])
		case c >= utf8.RuneSelf:
			out = appendRune(out, rune(c))
		case plain[c]:
			out = append(out, c)
		default:
			out = appendSpecial(out, rune(c), inText)
		}
	}
	return out
}

// windows1252 holds the characters from 0x80 to 0x9f.
var windows1252 = [32]rune{
	'€', 0xfffd, '‚', 'ƒ', '„', '…', '†', '‡', 'ˆ', '‰', 'Š', '‹', 'Œ', 0xfffd, 'Ž', 0xfffd,
	0xfffd, '‘', '’', '“', '”', '•', '–', '—', '˜', '™', 'š', '›', 'œ', 0xfffd, 'ž', 'Ÿ',
}

// appendName appends a name, and reports whether XML takes it as one. A name may
// have one colon, between other characters.
func appendName(out, b []byte) ([]byte, bool) {
	from, colons := len(out), 0
	for i := 0; i+1 < len(b); i += 2 {
		c := rune(binary.LittleEndian.Uint16(b[i:]))
		switch {
		case c == ':':
			colons++
		case !nameRune(c, i == 0):
			return out, false
		}
		out = utf8.AppendRune(out, c)
	}
	n := len(out) - from
	return out, n > 0 && colons <= 1 && out[from] != ':' && out[len(out)-1] != ':'
}

func nameRune(c rune, first bool) bool {
	switch {
	case 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || c == '_':
		return true
	case '0' <= c && c <= '9' || c == '-' || c == '.':
		return !first
	}
	return c >= utf8.RuneSelf && unicode.IsLetter(c)
}

// reserved reports whether a processing instruction may not have this name.
func reserved(name []byte) bool {
	return len(name) == 3 && name[0]|0x20 == 'x' && name[1]|0x20 == 'm' && name[2]|0x20 == 'l'
}
