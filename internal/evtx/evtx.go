// Package evtx reads Windows event-log files (.evtx) on any system.
//
// [Open] takes a file, [File.Records] walks over its records from the oldest to
// the newest and gives each as the XML text that EvtRender gives on Windows.
// What cannot be read comes in the same walk as a [Damage], which says where it
// lies and, as far as anyone can know, which records are gone.
//
// A file is not believed: nothing in it makes the walk panic, go on for ever or
// take more than a few MiB of memory. docs/evtx.md draws the bytes.
package evtx

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"iter"
	"time"
)

const (
	fileHeader  = 4096 // what lies before the first chunk
	chunkSize   = 64 << 10
	chunkHeader = 512
	maxChunks   = 1 << 20 // 64 GiB; Windows counts chunks in 16 bits
)

// ErrFormat says that neither the header of a file nor its first chunk is one of
// an event log.
var ErrFormat = errors.New("not a Windows event-log file")

// What a Damage can say, besides what was wrong with the bytes of one record.
var (
	errHeader    = errors.New("the file header is damaged")
	errNoChunk   = errors.New("not a chunk")
	errChunk     = errors.New("the chunk header does not have its checksum")
	errChecksum  = errors.New("the records do not have their checksum")
	errTruncated = errors.New("the file ends inside the chunk")
	errNoRecord  = errors.New("bytes that are not a record")
	errMissing   = errors.New("records are missing")
)

// A Record is one event.
type Record struct {
	ID      uint64    // its number in the file; an exported log has others in EventRecordID
	Written time.Time // when it was written to the log, in UTC
	Offset  int64     // in the file
	XML     []byte    // valid until the walk goes on
}

// Damage is a part of the file that could not be read, or is missing.
type Damage struct {
	Chunk  int   // counted from 0 in the order of the file; -1 is the file header
	Chunks int   // how many, if it is not a part of one
	Offset int64 // in the file
	// First and Last are the ids of the records that are gone, both or neither
	// zero: zero is unknown, or none. A log that was exported with a filter has
	// ids that never were among them.
	First, Last uint64
	// Count says how many records are gone where that is known; else it is 0.
	Count uint64
	Err   error
}

// Harmless reports whether the damage took no record by itself: a checksum does not
// hold, and what it is of is read all the same, as far as it can be.
func (d *Damage) Harmless() bool {
	return errors.Is(d.Err, errHeader) || errors.Is(d.Err, errChunk) || errors.Is(d.Err, errChecksum)
}

func (d *Damage) Error() string {
	where := fmt.Sprintf("chunk %d at %d", d.Chunk, d.Offset)
	if d.Chunk < 0 {
		where = "file header"
	} else if d.Chunks > 1 {
		where = fmt.Sprintf("chunks %d to %d at %d", d.Chunk, d.Chunk+d.Chunks-1, d.Offset)
	}
	switch {
	case d.First == 0:
		return fmt.Sprintf("%s: %v", where, d.Err)
	case d.First == d.Last:
		return fmt.Sprintf("%s: %v (record %d)", where, d.Err, d.First)
	}
	return fmt.Sprintf("%s: %v (records %d to %d)", where, d.Err, d.First, d.Last)
}

func (d *Damage) Unwrap() error { return d.Err }

// File is an open event log. It reads only from the io.ReaderAt, and several
// walks may go over it at once.
type File struct {
	r      io.ReaderAt
	chunks int
	tail   int // bytes of a last chunk that is not whole
	next   uint64
	damage error // of the header
}

// Open reads the header of the file that r gives, which is size bytes long. A
// damaged header is no reason to refuse the file if a chunk follows it: the walk
// says so first.
func Open(r io.ReaderAt, size int64) (*File, error) {
	f := &File{r: r}
	if size < fileHeader {
		return nil, ErrFormat
	}
	var head [fileHeader + 8]byte
	n, err := r.ReadAt(head[:min(size, int64(len(head)))], 0)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("read event log: %w", err)
	}
	if n < fileHeader || !bytes.HasPrefix(head[:], fileMagic) && !bytes.Equal(head[fileHeader:], chunkMagic) {
		return nil, ErrFormat
	}
	chunks := (size - fileHeader) / chunkSize
	f.tail = int((size - fileHeader) % chunkSize)
	if chunks > maxChunks {
		return nil, fmt.Errorf("event log of %d bytes: more than %d chunks", size, maxChunks)
	}
	f.chunks = int(chunks)
	f.readHeader(head[:fileHeader])
	return f, nil
}

var (
	fileMagic  = []byte("ElfFile\x00")
	chunkMagic = []byte("ElfChnk\x00")
)

// readHeader keeps the one thing that the header tells and the chunks do not: the
// id that the next record would have had when it was written. A log that was not
// closed (its dirty flag is set) has an old one. The number of chunks is not
// believed even then, and so not looked at.
func (f *File) readHeader(b []byte) {
	if !bytes.HasPrefix(b, fileMagic) || crc32.ChecksumIEEE(b[:120]) != binary.LittleEndian.Uint32(b[124:]) {
		f.damage = errHeader
		return
	}
	f.next = binary.LittleEndian.Uint64(b[24:])
}

// Records walks over the records, the oldest chunk first as far as the chunks
// tell. Each step gives a record, or a Damage and no record. Within what can be
// known, the ids of the records and those in the damages are all ids of the log.
func (f *File) Records() iter.Seq2[Record, *Damage] {
	return func(yield func(Record, *Damage) bool) {
		w := walk{f: f, yield: yield, chunk: make([]byte, chunkSize)}
		w.render.out = make([]byte, 0, 4<<10)
		w.run()
	}
}
