package wire

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"net/http"
	"os"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/klauspost/compress/zstd"
)

// A line here is never changed, only a new one added: frames that need these
// bytes lie in queues and stores.
var shipped = map[uint32]string{
	59905: "b42ae2856fadb3cbc7b6bd1c26b5dea6a0b0899abf43eceaacfea02b65810b62",
}

func TestDictionariesAreAsTheyWereShipped(t *testing.T) {
	var ids []uint32
	for _, d := range dictionaries() {
		info, err := zstd.InspectDictionary(d)
		if err != nil {
			t.Fatal(err)
		}
		ids = append(ids, info.ID())
		sum := sha256.Sum256(d)
		if got := hex.EncodeToString(sum[:]); got != shipped[info.ID()] {
			t.Errorf("dictionary %d has the sum %s, want %s", info.ID(), got, shipped[info.ID()])
		}
	}
	if d := cmp.Diff(ids, Dictionaries()); d != "" || len(ids) != len(shipped) {
		t.Errorf("%d were shipped; the ids are (-is +said):\n%s", len(shipped), d)
	}
	if &newest()[0] != &dictionaries()[len(ids)-1][0] {
		t.Error("frames are not made with the newest")
	}
}

// Frames that an earlier version made; 0 is for none.
func TestFramesOfOldDecodeForEver(t *testing.T) {
	want := file(t, "testdata/small.ndjson")
	for name, id := range map[string]uint32{"testdata/small-0.zst": 0, "testdata/small-59905.zst": 59905} {
		frame := file(t, name)
		got, err := NewDecompressor().Decode(nil, frame, len(want))
		if err != nil || !bytes.Equal(got, want) {
			t.Errorf("%s: %d bytes, %v", name, len(got), err)
		}
		if FrameDictionary(frame) != id || DecodedSize(frame) != len(want) {
			t.Errorf("%s: dictionary %d, decoded size %d", name, FrameDictionary(frame), DecodedSize(frame))
		}
	}
}

func file(t testing.TB, name string) []byte {
	t.Helper()
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestSmallFramesAreSmallerWithTheDictionary(t *testing.T) {
	readings := file(t, "testdata/small.ndjson")
	line := readings[:bytes.IndexByte(readings, '\n')+1]
	for name, src := range map[string][]byte{"readings": readings, "a line": line} {
		with, without := NewDictionaryCompressor().Append(nil, src), NewCompressor().Append(nil, src)
		if len(with)*5 > len(without)*4 {
			t.Errorf("%s of %d bytes: %d with the dictionary, %d without", name, len(src), len(with), len(without))
		}
	}
}

func TestOnlySmallFramesNeedTheDictionary(t *testing.T) {
	c, d, all := NewDictionaryCompressor(), NewDecompressor(), events(300<<10)
	var frames, lines []byte
	for _, n := range []int{1, 255, 256, 300, 1024, 1025, smallBytes, smallBytes + 1, 300 << 10, 5000} {
		src := all[:n]
		frame := c.Append(nil, src)
		want := newestID(t)
		if n > smallBytes {
			want = 0
		}
		if got := FrameDictionary(frame); got != want {
			t.Errorf("%d bytes: dictionary %d, want %d", n, got, want)
		}
		if got := DecodedSize(frame); got != max(n, 255) {
			t.Errorf("%d bytes: decoded size %d", n, got)
		}
		frames, lines = append(frames, frame...), append(lines, src...)
	}
	got, err := d.Decode(nil, frames, len(lines))
	if err != nil || !bytes.Equal(got, lines) {
		t.Errorf("one after the other: %d bytes, want %d, %v", len(got), len(lines), err)
	}
	if FrameDictionary(all) != 0 || FrameDictionary(frames[:4]) != 0 {
		t.Error("a dictionary of what is no frame")
	}
}

func newestID(t *testing.T) uint32 {
	info, err := zstd.InspectDictionary(newest())
	if err != nil {
		t.Fatal(err)
	}
	return info.ID()
}

func TestAnUnknownDictionaryIsToldFromDamage(t *testing.T) {
	strange := strange(t, 59999)
	plain := NewCompressor().Append(nil, []byte(good))
	d := NewDecompressor()
	for name, body := range map[string][]byte{"first": strange, "after another": append(bytes.Clone(plain), strange...)} {
		if out, err := d.Decode([]byte("kept"), body, 1<<20); !errors.Is(err, ErrDictionary) || string(out) != "kept" {
			t.Errorf("%s: %q, %v", name, out, err)
		}
	}
	if _, err := d.Decode(nil, plain, 1<<20); err != nil {
		t.Errorf("after that: %v", err)
	}
	if got := FrameDictionary(strange); got != 59999 {
		t.Errorf("dictionary %d", got)
	}
}

// strange returns a frame with a dictionary that was never shipped.
func strange(t testing.TB, id uint32) []byte {
	e, err := zstd.NewWriter(nil, zstd.WithEncoderDictRaw(id, []byte(good)))
	if err != nil {
		t.Fatal(err)
	}
	return e.EncodeAll([]byte(good), nil)
}

func TestAnAnswerSaysWhichDictionariesAreKnown(t *testing.T) {
	h := http.Header{}
	SetDictionaries(h)
	if d := cmp.Diff(Dictionaries(), ParseDictionaries(h)); d != "" {
		t.Error(d)
	}
	for text, want := range map[string][]uint32{"": nil, "59905": {59905}, "1  2 x -3 4294967296 5": {1, 2, 5}} {
		if d := cmp.Diff(want, ParseDictionaries(http.Header{headerDictionaries: {text}})); d != "" {
			t.Errorf("%q: %s", text, d)
		}
	}
	if got := ParseDictionaries(http.Header{}); got != nil {
		t.Errorf("no header: %v", got)
	}
}

func BenchmarkCompressSmall(b *testing.B) {
	src := file(b, "testdata/small.ndjson")
	for name, c := range map[string]*Compressor{"plain": NewCompressor(), "dictionary": NewDictionaryCompressor()} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			b.SetBytes(int64(len(src)))
			dst := c.Append(nil, src)
			for b.Loop() {
				dst = c.Append(dst[:0], src)
			}
			b.ReportMetric(float64(len(dst)), "B/frame")
		})
	}
}

func BenchmarkNewDecompressor(b *testing.B) {
	b.ReportAllocs()
	for b.Loop() {
		NewDecompressor()
	}
}
