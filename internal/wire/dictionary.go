package wire

import (
	_ "embed"
	"net/http"
	"strconv"
	"strings"

	"github.com/klauspost/compress/zstd"
)

// A dictionary holds what most small frames of agents have in common, so that a
// frame need not: it names the dictionary by its id. One that was shipped is
// never changed and never taken away, since frames that need it lie in queues and
// stores. Command test/dictionary made them; docs/decisions/0016 has the figures.
//
//go:embed dictionary-59905
var dictionary59905 []byte

// dictionaries returns all that were ever shipped, the newest last.
func dictionaries() [][]byte { return [][]byte{dictionary59905} }

// newest is the dictionary that frames are made with.
func newest() []byte { return dictionary59905 }

// Dictionaries returns the ids of the dictionaries that a Decompressor has.
func Dictionaries() []uint32 { return []uint32{59905} }

// FrameDictionary returns the id of the dictionary that the frame which b begins
// with needs to be read; 0 if none.
func FrameDictionary(b []byte) uint32 {
	var h zstd.Header
	if !IsZstd(b) || h.Decode(b) != nil {
		return 0
	}
	return h.DictionaryID
}

// SetDictionaries writes to the head of an answer which dictionaries are known
// here. A batch may hold frames with these, and with no others.
func SetDictionaries(h http.Header) {
	var list []string
	for _, id := range Dictionaries() {
		list = append(list, strconv.FormatUint(uint64(id), 10))
	}
	h.Set(headerDictionaries, strings.Join(list, " "))
}

// ParseDictionaries reads what SetDictionaries wrote; what is no id is passed
// over. Who answers without it knows none.
func ParseDictionaries(h http.Header) (ids []uint32) {
	for word := range strings.FieldsSeq(h.Get(headerDictionaries)) {
		if id, err := strconv.ParseUint(word, 10, 32); err == nil {
			ids = append(ids, uint32(id))
		}
	}
	return ids
}
