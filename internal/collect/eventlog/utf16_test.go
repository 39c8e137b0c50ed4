package eventlog

import (
	"testing"
	"unicode/utf16"
)

func TestUTF16BecomesUTF8(t *testing.T) {
	for _, s := range []string{"", "abc", "ä€", "a😀b", "\ufffd", "\U0010ffff"} {
		if got := string(appendUTF8(nil, utf16.Encode([]rune(s)))); got != s {
			t.Errorf("%q became %q", s, got)
		}
	}
	for _, wide := range [][]uint16{{0xd83d}, {0xd83d, 'a'}, {0xde00}, {0xde00, 0xd83d}, {'a', 0xd83d, 0xd83d, 0xde00}} {
		if got, want := string(appendUTF8(nil, wide)), string(utf16.Decode(wide)); got != want {
			t.Errorf("%x became %q, want %q", wide, got, want)
		}
	}
	if got := ended([]uint16{'a', 'b', 0, 'c'}); len(got) != 2 {
		t.Errorf("ended at %d", len(got))
	}
}
