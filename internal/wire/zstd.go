package wire

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"

	"github.com/klauspost/compress/zstd"
)

// The window of a frame is the memory that its reader needs. Ours is small for
// the agent's sake; what we read may be larger, but never as large as the 8 MiB
// that RFC 9659 lets "Content-Encoding: zstd" have.
const (
	window    = 256 << 10
	maxWindow = 1 << 20
)

// The errors of Decode that say more than that a body is damaged.
var (
	ErrTooLarge   = errors.New("body is larger than the limit when decoded")
	ErrDictionary = errors.New("a frame needs a dictionary that is not known here")
	ErrWindow     = errors.New("a frame needs a larger window than is allowed")
)

// A Compressor makes zstd frames. Goroutines that share one take turns, so that
// they need its memory once.
type Compressor struct {
	enc   *zstd.Encoder
	small *zstd.Encoder // with a dictionary, for what is small; nil without
}

// smallBytes is how many bytes of lines are compressed with the dictionary. What
// it saves of a frame is the same for any size, so larger ones are compressed as
// fast as can be, which is without.
const smallBytes = 32 << 10

// smallWindow spans a small frame and the dictionary.
const smallWindow = 64 << 10

// NewCompressor returns a Compressor of frames that any reader of zstd can read.
// It takes its memory at the first Append.
func NewCompressor() *Compressor { return &Compressor{enc: newEncoder(zstd.WithWindowSize(window))} }

// NewDictionaryCompressor returns a Compressor that makes small frames smaller, by
// the newest dictionary. They are for who has it: see ParseDictionaries.
func NewDictionaryCompressor() *Compressor {
	c := NewCompressor()
	c.small = newEncoder(zstd.WithWindowSize(smallWindow), zstd.WithEncoderDict(newest()))
	return c
}

func newEncoder(options ...zstd.EOption) *zstd.Encoder {
	enc, err := zstd.NewWriter(nil, append([]zstd.EOption{
		zstd.WithEncoderConcurrency(1),
		zstd.WithEncoderLevel(zstd.SpeedFastest), // sets a window, so it comes first
		zstd.WithLowerEncoderMem(true),
		zstd.WithEncoderCRC(true),
	}, options...)...)
	if err != nil {
		panic(err) // the options are constants
	}
	return enc
}

// Append appends src as one complete frame with a checksum to dst and returns
// the longer slice. Frames concatenate: the frames of two batches of lines, one
// after the other, decode to both.
func (c *Compressor) Append(dst, src []byte) []byte {
	if c.small != nil && len(src) <= smallBytes {
		return c.small.EncodeAll(src, dst)
	}
	return c.enc.EncodeAll(src, dst)
}

// A Decompressor reads the frames of strangers. It belongs to one goroutine at
// a time, is worth keeping in a sync.Pool, and holds no goroutine of its own.
type Decompressor struct {
	dec *zstd.Decoder
	src bytes.Reader
}

// NewDecompressor returns a Decompressor that reads windows of 1 MiB, and has every
// dictionary that was ever shipped.
func NewDecompressor() *Decompressor { return NewWindowDecompressor(maxWindow) }

// NewWindowDecompressor returns one that reads frames which need a window of so
// many bytes, and refuses larger ones.
func NewWindowDecompressor(window int) *Decompressor {
	dec, err := zstd.NewReader(nil,
		zstd.WithDecoderConcurrency(1), // decodes in Read, not in goroutines
		zstd.WithDecoderLowmem(true),
		zstd.WithDecoderDicts(dictionaries()...),
		zstd.WithDecoderMaxWindow(uint64(window)))
	if err != nil {
		panic(err) // the options are constants
	}
	return &Decompressor{dec: dec}
}

// Decode appends what the frames in src hold to dst and returns the longer
// slice. It stops with ErrTooLarge once that is more than limit bytes. The
// sizes that frames declare are not believed: dst grows only by what came out
// (WithDecoderMaxMemory does not bound a stream, so the reading is bounded).
func (d *Decompressor) Decode(dst, src []byte, limit int) ([]byte, error) {
	start := len(dst)
	d.src.Reset(src)
	defer d.src.Reset(nil)
	if err := d.dec.Reset(&d.src); err != nil {
		return dst, foreign(err)
	}
	for {
		if len(dst) == cap(dst) {
			dst = slices.Grow(dst, max(len(dst)-start, 64<<10))
		}
		room := min(cap(dst), start+limit+1)
		n, err := d.dec.Read(dst[len(dst):room])
		dst = dst[:len(dst)+n]
		switch {
		case len(dst)-start > limit:
			return dst[:start], ErrTooLarge
		case errors.Is(err, io.EOF):
			return dst, nil
		case errors.Is(err, zstd.ErrWindowSizeExceeded) || errors.Is(err, zstd.ErrDecoderSizeExceeded):
			return dst[:start], fmt.Errorf("zstd: %w", ErrWindow)
		case err != nil:
			return dst[:start], foreign(err)
		}
	}
}

// foreign says in our words what the library has to say.
func foreign(err error) error {
	if errors.Is(err, zstd.ErrUnknownDictionary) {
		return fmt.Errorf("zstd: %w", ErrDictionary)
	}
	return fmt.Errorf("zstd: %w", err)
}

// Parts counts the frames and the blocks of src, until there are more than most.
// Each costs its reader time, also if nothing comes out of it; to count them costs
// nearly nothing. What is damaged is counted until there; Decode says what is wrong.
func Parts(src []byte, most int) (n int) {
	for len(src) >= 8 && n <= most {
		n++
		if magic := binary.LittleEndian.Uint32(src); magic&^0xf == 0x184d2a50 { // skippable
			src = skipTo(src, 8+int(min(binary.LittleEndian.Uint32(src[4:]), 1<<30)))
			continue
		}
		flags := src[4]
		size := [4]int{0, 2, 4, 8}[flags>>6] // of the content size
		switch single := flags&0x20 != 0; {
		case !single:
			size++ // the window
		case size == 0:
			size = 1
		}
		src = skipTo(src, 5+size+[4]int{0, 1, 2, 4}[flags&3])
		for last := false; !last && len(src) >= 3 && n <= most; n++ {
			block := int(src[0]) | int(src[1])<<8 | int(src[2])<<16
			last = block&1 != 0
			if size = block >> 3; block>>1&3 == 1 {
				size = 1 // one byte, many times
			}
			src = skipTo(src, 3+size)
		}
		if flags&4 != 0 {
			src = skipTo(src, 4)
		}
	}
	return n
}

func skipTo(b []byte, n int) []byte { return b[min(n, len(b)):] }

// IsZstd reports whether b begins as a zstd frame does; a line of JSON never does.
func IsZstd(b []byte) bool { return bytes.HasPrefix(b, []byte("\x28\xb5\x2f\xfd")) }

// DecodedSize returns how many bytes one frame of Append decodes to, as its
// header says. What is not zstd has the size that it has.
func DecodedSize(b []byte) int {
	if !IsZstd(b) {
		return len(b)
	}
	var h zstd.Header
	if err := h.Decode(b); err != nil {
		return len(b) // no frame of Append
	}
	if !h.HasFCS {
		return 255 // Append writes the size from 256 on
	}
	return int(min(h.FrameContentSize, math.MaxInt))
}
