package evtx

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/google/go-cmp/cmp"
)

// story tells a walk: "1-3" are records, the rest are damages.
func story(t testing.TB, b []byte) []string {
	t.Helper()
	var lines []string
	first, last := uint64(0), uint64(0)
	flush := func() {
		if first > 0 {
			lines = append(lines, fmt.Sprintf("%d-%d", first, last))
		}
		first = 0
	}
	for r, d := range open(t, b).Records() {
		if d != nil {
			flush()
			lines = append(lines, fmt.Sprintf("%v, %d", d, d.Count))
			continue
		}
		if first > 0 && r.ID != last+1 {
			flush()
		}
		if last = r.ID; first == 0 {
			first = r.ID
		}
	}
	flush()
	return lines
}

// at returns the chunk with this number.
func at(b []byte, chunk int) []byte {
	return b[offset(chunk) : offset(chunk)+chunkSize]
}

// recordIn returns where the record with this id lies in a chunk.
func recordIn(chunk []byte, id uint64) int {
	for pos := chunkHeader; bytes.HasPrefix(chunk[pos:], recordMagic); pos += int(binary.LittleEndian.Uint32(chunk[pos+4:])) {
		if binary.LittleEndian.Uint64(chunk[pos+8:]) == id {
			return pos
		}
	}
	panic("no such record")
}

func TestDamageIsToldAndTheRestIsRead(t *testing.T) {
	for _, test := range []struct {
		name string
		do   func(b []byte) []byte // to a file of 3 chunks with 10 records each
		want []string
	}{
		{"nothing", func(b []byte) []byte { return b }, []string{"1-30"}},
		{"a chunk without its magic", func(b []byte) []byte {
			at(b, 1)[0] = 0
			return b
		}, []string{"1-10", "chunk 1 at 69632: not a chunk (records 11 to 20), 10", "21-30"}},
		{"two such chunks, and no header either", func(b []byte) []byte {
			clear(b[:8])
			at(b, 1)[0], at(b, 2)[0] = 0, 0
			return b
		}, []string{"file header: the file header is damaged, 0", "1-10", "chunks 1 to 2 at 69632: not a chunk, 0"}},
		{"the first chunk without its magic", func(b []byte) []byte {
			at(b, 0)[0] = 0
			return b
		}, []string{"chunk 0 at 4096: not a chunk, 0", "11-30"}},
		{"the last chunk without its magic", func(b []byte) []byte {
			at(b, 2)[0] = 0
			return b
		}, []string{"1-20", "chunk 2 at 135168: not a chunk (records 21 to 30), 0"}},
		{"a chunk that is zeros", func(b []byte) []byte {
			clear(at(b, 1))
			return b
		}, []string{"1-10", "chunk 1 at 69632: records are missing (records 11 to 20), 10", "21-30"}},
		{"all chunks are zeros", func(b []byte) []byte {
			clear(b[fileHeader:])
			return b
		}, []string{"chunks 0 to 2 at 4096: records are missing, 0"}},
		{"nothing behind the file header", func(b []byte) []byte {
			return b[:fileHeader]
		}, []string{"chunk 0 at 4096: records are missing, 0"}},
		{"nothing behind the header of a log that had no record", func([]byte) []byte {
			return logFile(1)
		}, nil},
		{"a log that was emptied", func([]byte) []byte {
			empty := chunkOf(1, 1)
			for i := range empty[chunkHeader:] {
				empty[chunkHeader+i] = 0
			}
			binary.LittleEndian.PutUint32(empty[48:], chunkHeader)
			sealChunk(empty)
			return logFile(31, empty)
		}, nil},
		{"a chunk that is not there", func(b []byte) []byte {
			return slices.Delete(b, int(offset(1)), int(offset(2)))
		}, []string{"1-10", "chunk 1 at 69632: records are missing (records 11 to 20), 10", "21-30"}},
		{"a chunk header with another checksum", func(b []byte) []byte {
			at(b, 1)[8]++
			return b
		}, []string{"1-10", "chunk 1 at 69632: the chunk header does not have its checksum, 0", "11-30"}},
		{"the first chunk header with another checksum", func(b []byte) []byte {
			at(b, 0)[8]++
			return b
		}, []string{"chunk 0 at 4096: the chunk header does not have its checksum, 0", "1-30"}},
		{"the same, and its first records destroyed", func(b []byte) []byte {
			c := at(b, 1)
			c[8]++
			clear(c[chunkHeader:recordIn(c, 14)])
			return b
		}, []string{
			"1-10", "chunk 1 at 69632: the chunk header does not have its checksum, 0",
			"chunk 1 at 70144: bytes that are not a record (records 11 to 13), 0",
			// The first of them had the templates of all.
			"chunk 1 at 71104: not exactly one root element (record 14), 1",
			"chunk 1 at 71208: not exactly one root element (record 15), 1",
			"chunk 1 at 71312: not exactly one root element (record 16), 1",
			"chunk 1 at 71416: not exactly one root element (record 17), 1",
			"chunk 1 at 71520: not exactly one root element (record 18), 1",
			"chunk 1 at 71624: not exactly one root element (record 19), 1",
			"chunk 1 at 71728: not exactly one root element (record 20), 1",
			"21-30",
		}},
		{"the same, and the chunk before it is not there", func(b []byte) []byte {
			at(b, 2)[8]++
			return slices.Delete(b, int(offset(1)), int(offset(2)))
		}, []string{
			"1-10", "chunk 1 at 69632: the chunk header does not have its checksum, 0",
			"chunk 1 at 70144: records are missing (records 11 to 20), 0", "21-30",
		}},
		{"a chunk header that cannot be true", func(b []byte) []byte {
			binary.LittleEndian.PutUint64(at(b, 1)[32:], 3)
			sealChunk(at(b, 1))
			return b
		}, []string{"1-10", "chunk 1 at 69632: the chunk header does not have its checksum, 0", "11-30"}},
		{"a record with other bytes", func(b []byte) []byte {
			c := at(b, 1)
			c[recordIn(c, 15)+16]++ // in its time
			return b
		}, []string{"1-10", "chunk 1 at 69632: the records do not have their checksum, 0", "11-30"}},
		{"a record that is no BinXml", func(b []byte) []byte {
			c := at(b, 1)
			c[recordIn(c, 15)+recordHeader] = 0x1f
			sealChunk(c)
			return b
		}, []string{"1-14", "chunk 1 at 71208: token in the wrong place (record 15), 1", "16-30"}},
		{"records that are zeros", func(b []byte) []byte {
			c := at(b, 1)
			clear(c[recordIn(c, 14):recordIn(c, 16)])
			sealChunk(c)
			return b
		}, []string{"1-13", "chunk 1 at 71104: bytes that are not a record (records 14 to 15), 2", "16-30"}},
		{"a record with a size that is too large", func(b []byte) []byte {
			c := at(b, 1)
			binary.LittleEndian.PutUint32(c[recordIn(c, 14)+4:], chunkSize)
			sealChunk(c)
			return b
		}, []string{"1-13", "chunk 1 at 71104: bytes that are not a record (record 14), 1", "15-30"}},
		{"a record with the id of another", func(b []byte) []byte {
			c := at(b, 1)
			c[recordIn(c, 14)+8] = 16
			sealChunk(c)
			return b
		}, []string{"1-13", "chunk 1 at 71104: bytes that are not a record (record 14), 1", "15-30"}},
		{"the last records of a chunk", func(b []byte) []byte {
			c := at(b, 1)
			clear(c[recordIn(c, 18):])
			sealChunk(c)
			return b
		}, []string{"1-17", "chunk 1 at 71520: records are missing (records 18 to 20), 3", "21-30"}},
		{"a file that ends inside a chunk", func(b []byte) []byte {
			return b[:offset(1)+int64(recordIn(at(b, 1), 14))+5]
		}, []string{
			"1-10", "chunk 1 at 69632: the file ends inside the chunk, 0", "11-13",
			"chunk 1 at 71104: records are missing (records 14 to 20), 7",
			"chunk 1 at 69632: records are missing (records 21 to 30), 0",
		}},
		{"a file header with another checksum", func(b []byte) []byte {
			b[24]++
			return b
		}, []string{"file header: the file header is damaged, 0", "1-30"}},
		{"a file header that is older than the chunks", func(b []byte) []byte {
			binary.LittleEndian.PutUint64(b[24:], 5)
			binary.LittleEndian.PutUint16(b[42:], 1)
			b[120] = 1
			sealFile(b)
			return b
		}, []string{"1-30"}},
		{"chunks that went round", func(b []byte) []byte {
			return logFile(31, at(b, 1), at(b, 2), at(b, 0))
		}, []string{"1-30"}},
		{"chunks that went round, one without its magic", func(b []byte) []byte {
			at(b, 2)[0] = 0
			return logFile(41, at(b, 1), at(b, 2), chunkOf(31, 40), at(b, 0))
		}, []string{"1-20", "chunk 1 at 69632: not a chunk (records 21 to 30), 10", "31-40"}},
		{"chunks that were never used", func(b []byte) []byte {
			return append(b, make([]byte, 2*chunkSize+100)...)
		}, []string{"1-30"}},
		{"other bytes behind the last chunk", func(b []byte) []byte {
			return append(b, bytes.Repeat([]byte("x"), 100)...)
		}, []string{"1-30", "chunk 3 at 200704: not a chunk, 0"}},
		{"an empty chunk", func([]byte) []byte { return logFile(1, newChunk(1).bytes()) }, nil},
		{"ids that a filter left out", func([]byte) []byte {
			return logFile(100, sparse(1, 3, 7, 8), sparse(4, 20, 24))
		}, []string{"3-3", "7-8", "20-20", "24-24"}},
		{"a chunk missing among such ids", func([]byte) []byte {
			return logFile(100, sparse(1, 3, 7, 8), sparse(6, 20, 24))
		}, []string{"3-3", "7-8", "chunk 1 at 69632: records are missing (records 9 to 19), 2", "20-20", "24-24"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			got := story(t, test.do(logFile(31, chunkOf(1, 10), chunkOf(11, 20), chunkOf(21, 30))))
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// sparse is a chunk of records with these ids, the first of which has the number.
func sparse(number uint64, ids ...uint64) []byte {
	e := newChunk(number)
	for _, id := range ids {
		e.record(id, event(id, "event"))
	}
	return e.bytes()
}

func TestRecordsNewerThanTheChunkHeaderAreRead(t *testing.T) {
	b := logFile(1, chunkOf(1, 10))
	c := at(b, 0)
	binary.LittleEndian.PutUint64(c[16:], 4)
	binary.LittleEndian.PutUint64(c[32:], 4)
	binary.LittleEndian.PutUint32(c[48:], uint32(recordIn(c, 5)))
	sealChunk(c)
	b = append(b, chunkOf(11, 20)...)
	if diff := cmp.Diff([]string{"1-20"}, story(t, b)); diff != "" {
		t.Error(diff)
	}
}

func TestRecordsAreReadUnderAHeaderFromBeforeTheFirst(t *testing.T) {
	c := chunkOf(11, 20)
	empty := newChunk(11).bytes()
	copy(c, empty[:chunkHeader])
	for name, b := range map[string][]byte{"alone": logFile(1, c), "behind another": logFile(1, chunkOf(1, 10), c)} {
		want := []string{"11-20"}
		if name != "alone" {
			want = []string{"1-20"}
		}
		if diff := cmp.Diff(want, story(t, b)); diff != "" {
			t.Errorf("%s: %s", name, diff)
		}
	}
}

func TestOlderRecordsBehindTheLastAreNotOfTheLog(t *testing.T) {
	old := chunkOf(1, 10)
	e := newChunk(31)
	for id := uint64(31); id < 34; id++ {
		e.record(id, event(id, "event"))
	}
	c := e.bytes()
	copy(c[len(e.b):], old[recordIn(old, 4):])
	if got := recordIn(c, 4); got != len(e.b) {
		t.Fatalf("the old record lies at %d, want %d", got, len(e.b))
	}
	for _, want := range [][]string{
		{"31-33"},
		{"chunk 0 at 4096: the chunk header does not have its checksum, 0", "31-33"},
	} {
		if diff := cmp.Diff(want, story(t, logFile(34, c))); diff != "" {
			t.Error(diff)
		}
		c[8]++ // the second round
	}
}

// Whatever bit of the header or the records is wrong: something is said, and a
// record that is given is given with its id.
func TestNoFlippedBitGoesUnsaid(t *testing.T) {
	b := logFile(5, chunkOf(1, 2), chunkOf(3, 4))
	free := int(binary.LittleEndian.Uint32(at(b, 0)[48:]))
	for i := range free {
		if 120 <= i && i < 124 {
			continue // flags, which no checksum covers
		}
		at(b, 0)[i] ^= 1 << (i % 8)
		damages, last := 0, uint64(0)
		for r, d := range open(t, b).Records() {
			if d != nil {
				damages++
				continue
			}
			if r.ID <= last {
				t.Errorf("byte %d: record %d after %d", i, r.ID, last)
			}
			last = r.ID
		}
		if damages == 0 || last != 4 {
			t.Errorf("byte %d: %d damages, last record %d", i, damages, last)
		}
		at(b, 0)[i] ^= 1 << (i % 8)
	}
}

// In a log without a filter each id is that of one record, or of one damage.
func TestIdsAddUpWhateverIsDamaged(t *testing.T) {
	sound := logFile(31, chunkOf(1, 10), chunkOf(11, 20), chunkOf(21, 30))
	const seed = 1
	random := rand.New(rand.NewPCG(seed, seed))
	for history := range 1000 {
		b := slices.Clone(sound)
		for range 1 + random.IntN(4) {
			damageOnce(random, b)
		}
		seen := map[uint64]int{}
		for r, d := range open(t, b).Records() {
			if d == nil {
				seen[r.ID]++
				continue
			}
			for id := d.First; id > 0 && id <= d.Last; id++ {
				seen[id]++
			}
		}
		for id := uint64(1); id <= 30; id++ {
			if seen[id] != 1 {
				t.Fatalf("seed %d, history %d: id %d is there %d times: %v", seed, history, id, seen[id], story(t, b))
			}
		}
	}
}

// damageOnce destroys records, or a chunk that is not the first.
func damageOnce(random *rand.Rand, b []byte) {
	c := at(b, random.IntN(3))
	free := int(binary.LittleEndian.Uint32(c[48:]))
	from := chunkHeader + random.IntN(free-chunkHeader)
	to := min(free, from+1+random.IntN(400))
	switch random.IntN(4) {
	case 0:
		clear(c[from:to])
	case 1:
		for i := from; i < to; i++ {
			c[i] = byte(random.Uint32())
		}
	case 2:
		c[from] ^= 1 << random.IntN(8)
	case 3:
		at(b, 1+random.IntN(2))[0] = 0
	}
	if random.IntN(2) == 0 {
		sealChunk(c)
	}
}

func TestAFileThatIsNoEventLogIsRefused(t *testing.T) {
	for name, b := range map[string][]byte{
		"nothing":         {},
		"too short":       logFile(1)[:fileHeader-1],
		"something else":  []byte(strings.Repeat("log ", 3000)),
		"the old EVT log": append([]byte("\x30\x00\x00\x00LfLe"), make([]byte, 8192)...),
	} {
		if _, err := Open(bytes.NewReader(b), int64(len(b))); !errors.Is(err, ErrFormat) {
			t.Errorf("%s: %v", name, err)
		}
	}
	b := logFile(1)
	if _, err := Open(bytes.NewReader(b), 1<<40); err == nil || errors.Is(err, ErrFormat) {
		t.Errorf("a file of 1 TiB: %v", err)
	}
}

// failing cannot read chunk 1.
type failing struct{ io.ReaderAt }

func (f failing) ReadAt(b []byte, off int64) (int, error) {
	if off == offset(1) {
		return 0, iotest.ErrTimeout
	}
	return f.ReaderAt.ReadAt(b, off)
}

func TestAReadThatFailsCostsItsChunk(t *testing.T) {
	b := logFile(31, chunkOf(1, 10), chunkOf(11, 20), chunkOf(21, 30))
	f, err := Open(failing{bytes.NewReader(b)}, int64(len(b)))
	if err != nil {
		t.Fatal(err)
	}
	var got []Damage
	records := 0
	for _, d := range f.Records() {
		if d == nil {
			records++
			continue
		}
		got = append(got, Damage{d.Chunk, d.Chunks, d.Offset, d.First, d.Last, d.Count, nil})
		if !errors.Is(d, iotest.ErrTimeout) {
			t.Error(d)
		}
	}
	if diff := cmp.Diff([]Damage{{1, 1, offset(1), 11, 20, 10, nil}}, got); diff != "" || records != 20 {
		t.Errorf("%d records, %s", records, diff)
	}
	if _, err := Open(iotestReaderAt{}, 1<<20); !errors.Is(err, iotest.ErrTimeout) {
		t.Errorf("open: %v", err)
	}
}

type iotestReaderAt struct{}

func (iotestReaderAt) ReadAt([]byte, int64) (int, error) { return 0, iotest.ErrTimeout }

func TestAWalkEndsWhenItsCallerDoes(t *testing.T) {
	b := logFile(31, chunkOf(1, 10), chunkOf(11, 20), chunkOf(21, 30))
	at(b, 0)[8]++
	clear(at(b, 1)[chunkHeader:recordIn(at(b, 1), 14)])
	at(b, 2)[0] = 0
	b = append(b, chunkOf(31, 32)...)
	b[24]++
	steps := 0
	for range open(t, b).Records() {
		steps++
	}
	for n := 1; n <= steps; n++ {
		i := 0
		for range open(t, b).Records() {
			if i++; i == n {
				break
			}
		}
		if i != n {
			t.Errorf("%d steps, want %d", i, n)
		}
	}
}

func TestRecordsCostNoAllocation(t *testing.T) {
	few := open(t, logFile(11, chunkOf(1, 10)))
	many := open(t, logFile(301, chunkOf(1, 300)))
	walk := func(f *File) float64 {
		return testing.AllocsPerRun(10, func() {
			for range f.Records() {
			}
		})
	}
	if a, b := walk(few), walk(many); b > a {
		t.Errorf("%v allocations for 10 records, %v for 300", a, b)
	}
}
