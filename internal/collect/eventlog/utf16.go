package eventlog

import (
	"unicode/utf16"
	"unicode/utf8"
)

// ended returns what is before the first NUL.
func ended(wide []uint16) []uint16 {
	for i, c := range wide {
		if c == 0 {
			return wide[:i]
		}
	}
	return wide
}

// appendUTF8 appends what is UTF-16 as UTF-8; half of a pair becomes U+FFFD.
func appendUTF8(dst []byte, wide []uint16) []byte {
	for i := 0; i < len(wide); i++ {
		switch c := rune(wide[i]); {
		case c < utf8.RuneSelf:
			dst = append(dst, byte(c))
		case utf16.IsSurrogate(c) && i+1 < len(wide) && utf16.DecodeRune(c, rune(wide[i+1])) != utf8.RuneError:
			dst = utf8.AppendRune(dst, utf16.DecodeRune(c, rune(wide[i+1])))
			i++
		default:
			dst = utf8.AppendRune(dst, c)
		}
	}
	return dst
}
