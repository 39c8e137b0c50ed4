package wire

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime"
	"strings"
	"testing"

	"github.com/klauspost/compress/zstd"
)

// events returns about n bytes of lines that look like an agent's.
func events(n int) []byte {
	r := rand.New(rand.NewPCG(1, 2))
	var b bytes.Buffer
	for seq := 1; b.Len() < n; seq++ {
		fmt.Fprintf(&b, `{"v":1,"time":"2026-01-02T03:%02d:%02d.%09dZ","node":"0190d1c0-0000-7000-8000-000000000001","hostname":"lab-7",`+
			`"stream":"7f3a00000000000000000000000000c1","seq":%d,"kind":"cpu","cpu":{"utilization":%.4f,"user_seconds":%d.%d,"load_1m":%.2f}}`+"\n",
			seq/30%60, seq*2%60, r.IntN(1e9), seq, r.Float64(), seq*3, r.IntN(100), r.Float64()*4)
	}
	return b.Bytes()
}

func TestFramesConcatenate(t *testing.T) {
	a, b := events(300<<10), events(1000)
	c := NewCompressor()
	frames := c.Append([]byte("prefix"), a)
	frames = c.Append(frames, b)[len("prefix"):]
	d := NewDecompressor()
	for range 2 { // it can be used again
		got, err := d.Decode([]byte("kept"), frames, len(a)+len(b))
		if err != nil || string(got) != "kept"+string(a)+string(b) {
			t.Fatalf("%d bytes, %v", len(got), err)
		}
		if _, err := d.Decode(nil, frames, len(a)+len(b)-1); !errors.Is(err, ErrTooLarge) {
			t.Fatalf("one byte over the limit: %v", err)
		}
	}
}

func TestDecodedSizeIsWhatComesOut(t *testing.T) {
	c, all := NewCompressor(), events(300<<10)
	for _, n := range []int{256, 257, 1000, 1024, 1025, 70000, 256 << 10, len(all)} {
		if frame := c.Append(nil, all[:n]); !IsZstd(frame) || DecodedSize(frame) != n {
			t.Errorf("%d bytes: zstd %v, decoded size %d", n, IsZstd(frame), DecodedSize(frame))
		}
		if IsZstd(all[:n]) || DecodedSize(all[:n]) != n {
			t.Errorf("%d plain bytes: zstd %v, decoded size %d", n, IsZstd(all[:n]), DecodedSize(all[:n]))
		}
	}
	if got := DecodedSize(c.Append(nil, all[:255])); got != 255 {
		t.Errorf("255 bytes: %d", got)
	}
}

func TestDecodeRefusesWhatIsDamaged(t *testing.T) {
	d, want := NewDecompressor(), events(10000)
	for name, c := range map[string]*Compressor{"plain": NewCompressor(), "with a dictionary": NewDictionaryCompressor()} {
		frame := c.Append(nil, want)
		for i := range frame {
			if i == 0 {
				continue // an empty body is no frames
			}
			if got, err := d.Decode(nil, frame[:i], 1<<20); err == nil {
				t.Fatalf("%s: cut to %d of %d bytes: decoded %d bytes", name, i, len(frame), len(got))
			}
		}
		for i := range frame {
			flipped := bytes.Clone(frame)
			flipped[i] ^= 0x10
			if got, err := d.Decode(nil, flipped, 1<<20); err == nil && !bytes.Equal(got, want) {
				t.Fatalf("%s: byte %d flipped: decoded other bytes", name, i)
			}
		}
	}
	if _, err := d.Decode(nil, []byte("{}\n"), 1<<20); err == nil {
		t.Error("plain text decoded")
	}
}

// A bomb is cut off by what comes out of it, and its reader's memory does not
// grow with what it claims.
func TestDecodeSurvivesBombs(t *testing.T) {
	encode := func(src []byte, opts ...zstd.EOption) []byte {
		e, err := zstd.NewWriter(nil, opts...)
		if err != nil {
			t.Fatal(err)
		}
		return e.EncodeAll(src, nil)
	}
	zeros := make([]byte, 64<<20)
	small := encode(make([]byte, 900<<10))
	for name, bomb := range map[string][]byte{
		"64 MiB of zeros":       encode(zeros, zstd.WithWindowSize(1<<20)),
		"a window of 64 MiB":    encode(zeros, zstd.WithWindowSize(64<<20)),
		"one segment":           encode(zeros, zstd.WithSingleSegment(true)),
		"many frames":           bytes.Repeat(small, 100),
		"a claim of 2^62":       {0x28, 0xb5, 0x2f, 0xfd, 0xe0, 0, 0, 0, 0, 0, 0, 0, 0x40, 1, 0, 0},
		"a window of 2^41":      {0x28, 0xb5, 0x2f, 0xfd, 0x00, 0xff, 1, 0, 0},
		"an unknown dictionary": {0x28, 0xb5, 0x2f, 0xfd, 0x01, 0x58, 7, 1, 0, 0},
	} {
		d := NewDecompressor()
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		out, err := d.Decode(nil, bomb, 8<<20)
		runtime.ReadMemStats(&after)
		if err == nil || len(out) != 0 {
			t.Errorf("%s: %d bytes, %v", name, len(out), err)
		}
		if got := after.TotalAlloc - before.TotalAlloc; got > 40<<20 {
			t.Errorf("%s: %d bytes allocated", name, got)
		}
	}
}

func FuzzDecode(f *testing.F) {
	c := NewCompressor()
	f.Add(c.Append(nil, []byte(good)))
	f.Add(c.Append(c.Append(nil, []byte(good)), events(3000)))
	f.Add(c.Append(nil, []byte(strings.Repeat("a", 100000))))
	f.Add([]byte{0x28, 0xb5, 0x2f, 0xfd, 0xe0, 0, 0, 0, 0, 0, 0, 0, 0x40, 1, 0, 0})
	small := NewDictionaryCompressor()
	f.Add(small.Append(nil, []byte(good)))
	f.Add(small.Append(c.Append(nil, []byte(good)), events(3000)))
	f.Add(file(f, "testdata/small-59905.zst"))
	f.Add(strange(f, 59999))
	f.Add([]byte{0x50, 0x2a, 0x4d, 0x18, 1, 0, 0, 0, 7})
	d := NewDecompressor()
	f.Fuzz(func(t *testing.T, data []byte) {
		if out, err := d.Decode(nil, data, 1<<18); len(out) > 1<<18 || err != nil && len(out) > 0 {
			t.Fatalf("%d bytes, %v", len(out), err)
		}
	})
}

func BenchmarkCompress(b *testing.B) {
	src := events(256 << 10)
	b.ReportAllocs()
	b.SetBytes(int64(len(src)))
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	c := NewCompressor()
	dst := c.Append(nil, src)
	runtime.GC()
	runtime.ReadMemStats(&after)
	for b.Loop() {
		dst = c.Append(dst[:0], src)
	}
	b.ReportMetric(float64(after.HeapAlloc-before.HeapAlloc), "heap-bytes")
	b.ReportMetric(float64(len(dst))/float64(bytes.Count(src, []byte("\n"))), "B/event")
	runtime.KeepAlive(c)
}

func BenchmarkDecode(b *testing.B) {
	src := events(1 << 20)
	frames := NewCompressor().Append(nil, src)
	b.ReportAllocs()
	b.SetBytes(int64(len(src)))
	d := NewDecompressor()
	dst := make([]byte, 0, len(src)+1)
	for b.Loop() {
		var err error
		if dst, err = d.Decode(dst[:0], frames, len(src)); err != nil {
			b.Fatal(err)
		}
	}
}
