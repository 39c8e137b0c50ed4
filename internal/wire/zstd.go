package wire

import (
	"bytes"
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
)

// A Compressor makes zstd frames. It belongs to one goroutine at a time.
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

// NewDecompressor returns a Decompressor, which has every dictionary that was ever
// shipped.
func NewDecompressor() *Decompressor {
	dec, err := zstd.NewReader(nil,
		zstd.WithDecoderConcurrency(1), // decodes in Read, not in goroutines
		zstd.WithDecoderLowmem(true),
		zstd.WithDecoderDicts(dictionaries()...),
		zstd.WithDecoderMaxWindow(maxWindow))
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
