package main

import (
	_ "embed"
	"encoding/binary"
	"fmt"
	"regexp"
	"strconv"
	"unicode/utf16"
)

// The manifest asks for nobody's rights, takes long paths, and says that Windows
// 10 and all after it are known: older ones cannot run Go.
//
//go:embed program.manifest
var manifest []byte

// A number is the version that Windows compares: major, minor, patch, and the
// commits since that tag.
type number [4]uint16

func (n number) String() string { return fmt.Sprintf("%d.%d.%d.%d", n[0], n[1], n[2], n[3]) }

var described = regexp.MustCompile(`^v?(\d+)\.(\d+)\.(\d+)(?:-(\d+)-g[0-9a-f]+)?`)

// numberOf returns the number of what git describe says. Without a tag it is
// 0.0.0.0, which everything else replaces. The number of a release and of its
// candidates is the same.
func numberOf(version string) (n number) {
	match := described.FindStringSubmatch(version)
	if match == nil {
		return n
	}
	for i, digits := range match[1:] {
		if v, err := strconv.ParseUint(digits, 10, 16); err == nil {
			n[i] = uint16(v)
		}
	}
	return n
}

// versionInfo is VS_VERSIONINFO (Windows, "Version Information").
func (p program) versionInfo() []byte {
	n := numberOf(p.version)
	high, low := uint32(n[0])<<16|uint32(n[1]), uint32(n[2])<<16|uint32(n[3])
	fixed := words(nil, 0xFEEF04BD, 1<<16, high, low, high, low,
		0x3f, 0, // which flags count: all, and none is set
		4<<16,      // for Windows
		1, 0, 0, 0) // a program
	var strings [][]byte
	for _, s := range p.strings() {
		strings = append(strings, text(s[0], s[1]))
	}
	table := block("040904B0", nil, 0, 1, strings...)
	translation := binary.LittleEndian.AppendUint32(nil, 1200<<16|english) // UTF-16
	return block("VS_VERSION_INFO", fixed, len(fixed), 0,
		block("StringFileInfo", nil, 0, 1, table),
		block("VarFileInfo", nil, 0, 1, block("Translation", translation, len(translation), 0)))
}

func (p program) strings() [][2]string {
	return [][2]string{
		{"CompanyName", "REA"},
		{"FileDescription", p.about},
		{"FileVersion", numberOf(p.version).String()},
		{"InternalName", p.name},
		{"LegalCopyright", "Apache License 2.0"},
		{"OriginalFilename", p.name + ".exe"},
		{"ProductName", "REA"},
		{"ProductVersion", p.version},
	}
}

func text(key, value string) []byte {
	wide := utf16.Encode([]rune(value + "\x00"))
	return block(key, wideBytes(wide), len(wide), 1)
}

// block is one node of the tree: its length, the length of its value (of text in
// characters), whether that is text, the key, the value, what is below. Each part
// begins at a multiple of four.
func block(key string, value []byte, length, isText int, below ...[]byte) []byte {
	out := make([]byte, 6)
	out = pad(append(out, wideBytes(utf16.Encode([]rune(key+"\x00")))...))
	out = append(out, value...)
	for _, b := range below {
		out = append(pad(out), b...)
	}
	binary.LittleEndian.PutUint16(out, uint16(len(out)))
	binary.LittleEndian.PutUint16(out[2:], uint16(length))
	binary.LittleEndian.PutUint16(out[4:], uint16(isText))
	return out
}

func pad(b []byte) []byte { return append(b, make([]byte, up(len(b), 4)-len(b))...) }

func wideBytes(wide []uint16) (out []byte) {
	for _, w := range wide {
		out = binary.LittleEndian.AppendUint16(out, w)
	}
	return out
}
