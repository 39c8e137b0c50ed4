package evtx

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"encoding/binary"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// The files of real machines lie beside the repository, where there are any.
var sharedData = filepath.Join("..", "..", "..", "shared", "data")

func shared(t testing.TB, name string) []byte {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(sharedData, filepath.FromSlash(name)))
	if errors.Is(err, fs.ErrNotExist) {
		t.Skipf("samples: %s is not here", filepath.Join(sharedData, name))
	} else if err != nil {
		t.Fatal(err)
	}
	return b
}

var realLogs = []struct {
	name            string
	records         int
	lost            uint64 // as the damages say
	lostSoundChunks uint64 // of them, those in chunks that have their magic
}{
	{"evtx/new-user-security.evtx", 4, 0, 0},
	{"evtx/sysmon.evtx", 358, 0, 0},
	{"evtx/system.evtx", 1881, 0, 0},
	{"evtx/sample_with_a_bad_chunk_magic.evtx", 298, 1717, 169},
}

func TestEveryRecordOfRealLogsIsRead(t *testing.T) {
	for _, test := range realLogs {
		t.Run(filepath.Base(test.name), func(t *testing.T) {
			b := shared(t, test.name)
			var records int
			var lost uint64
			for r, d := range open(t, b).Records() {
				if d != nil {
					t.Log(d)
					lost += d.Count
					continue
				}
				records++
				wellFormed(t, r.XML)
			}
			if records != test.records || lost != test.lost {
				t.Errorf("%d records and %d lost, want %d and %d", records, lost, test.records, test.lost)
			}
			// The other way to count: what looks like a record in a chunk that is one,
			// before the end of its records, whether it can be rendered or not.
			if n := candidates(b); n != records {
				t.Errorf("%d records, but %d places that look like one", records, n)
			}
			if promised := promises(b); promised != uint64(records)+test.lostSoundChunks {
				t.Errorf("%d records, and %d of sound chunks lost, but the chunks promise %d", records, test.lostSoundChunks, promised)
			}
		})
	}
}

// candidates counts the places where a record begins and its size stands once more
// at its end.
func candidates(b []byte) int {
	n := 0
	soundChunks(b, func(c []byte, h header) {
		for pos := chunkHeader; pos+recordHeader < h.free; pos += 4 {
			if !bytes.HasPrefix(c[pos:], recordMagic) {
				continue
			}
			size := int(binary.LittleEndian.Uint32(c[pos+4:]))
			if size > recordHeader && pos+size <= h.free && int(binary.LittleEndian.Uint32(c[pos+size-4:])) == size {
				n++
			}
		}
	})
	return n
}

// promises counts the records that the headers of the chunks name.
func promises(b []byte) uint64 {
	n := uint64(0)
	soundChunks(b, func(_ []byte, h header) { n += h.lastNumber - h.firstNumber + 1 })
	return n
}

func soundChunks(b []byte, do func([]byte, header)) {
	for i := 0; offset(i+1) <= int64(len(b)); i++ {
		if c := at(b, i); bytes.HasPrefix(c, chunkMagic) {
			do(c, parseHeader(c))
		}
	}
}

// Some records of these logs are also among those that Windows itself rendered.
func TestRealRecordsAreByteForByteWhatWindowsMadeOfThem(t *testing.T) {
	z, err := gzip.NewReader(bytes.NewReader(shared(t, "windows-events.xml.gz")))
	if err != nil {
		t.Fatal(err)
	}
	windows := map[[3]string]string{}
	lines := bufio.NewScanner(z)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		windows[identity(lines.Bytes())] = lines.Text()
	}
	if lines.Err() != nil {
		t.Fatal(lines.Err())
	}
	same := 0
	for _, log := range realLogs {
		for r, d := range open(t, shared(t, log.name)).Records() {
			want, ok := windows[identity(r.XML)]
			if d != nil || !ok {
				continue
			}
			if diff := cmp.Diff(want, string(r.XML)); diff != "" {
				t.Error(diff)
			}
			same++
		}
	}
	if same < 200 {
		t.Errorf("%d records are in both, want at least 200", same)
	}
}

var (
	idOf       = regexp.MustCompile(`<EventRecordID>(\d+)<`)
	channelOf  = regexp.MustCompile(`<Channel>([^<]*)<`)
	computerOf = regexp.MustCompile(`<Computer>([^<]*)<`)
)

// identity is what tells an event from any other: id, channel and computer.
func identity(text []byte) (id [3]string) {
	for i, r := range []*regexp.Regexp{idOf, channelOf, computerOf} {
		if m := r.FindSubmatch(text); m != nil {
			id[i] = string(m[1])
		}
	}
	return id
}

func BenchmarkRecords(b *testing.B) {
	for _, log := range realLogs {
		b.Run(filepath.Base(log.name), func(b *testing.B) { benchmark(b, shared(b, log.name)) })
	}
	b.Run("synthetic", func(b *testing.B) {
		benchmark(b, logFile(601, chunkOf(1, 300), chunkOf(301, 600)))
	})
}

func benchmark(b *testing.B, data []byte) {
	b.SetBytes(int64(len(data)))
	b.ReportAllocs()
	records, text := 0, 0
	for b.Loop() {
		for r, d := range open(b, data).Records() {
			if d == nil {
				records++
				text += len(r.XML)
			}
		}
	}
	b.ReportMetric(float64(records)/b.Elapsed().Seconds(), "records/s")
	b.ReportMetric(float64(text)/float64(records), "xml-B/record")
}
