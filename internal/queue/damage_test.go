package queue

import (
	"bytes"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"
)

// A damaged queue is a small one, on a simulated disk, with a byte or more that
// is not what was written.
const (
	damageRecords = 14
	damageAcked   = 3
)

// smallQueue returns a folder with records 1 to damageRecords in two segments,
// of which some are acknowledged. If killed, it was not closed.
func smallQueue(t testing.TB, killed bool) *simFolder {
	t.Helper()
	d := newSimFolder(rand.New(rand.NewPCG(1, 1)))
	for run := range uint64(2) {
		q := openSim(t, d)
		for n := run*damageRecords/2 + 1; n <= (run+1)*damageRecords/2; n++ {
			if err := q.Append(t.Context(), Record{n, 1, payload(n, int(n)*5%40)}); err != nil {
				t.Fatal(err)
			}
		}
		if err := q.Ack(damageAcked); err != nil {
			t.Fatal(err)
		}
		if killed && run == 1 {
			d.kill()
		} else if err := q.Close(); err != nil {
			t.Fatal(err)
		}
	}
	return d
}

func openSim(t testing.TB, d *simFolder) *Queue {
	t.Helper()
	q, err := open(Options{Dir: "sim", MaxBytes: MinBytes}, d)
	if err != nil {
		t.Fatal(err)
	}
	return q
}

// with returns a copy of the folder in which the named file is b.
func (d *simFolder) with(name string, b []byte) *simFolder {
	c := newSimFolder(d.rng)
	for other, n := range d.names {
		c.names[other] = &inode{cache: slices.Clone(n.cache)}
	}
	c.names[name] = &inode{cache: b}
	return c
}

// account opens the folder, drains it and says which numbers are missing, and
// which of these are not declared lost.
func account(t *testing.T, d *simFolder) (next uint64, missing, silent []uint64) {
	t.Helper()
	q := openSim(t, d)
	next = q.Next()
	missingSet := map[uint64]bool{}
	for n := uint64(damageAcked + 1); n <= damageRecords; n++ {
		missingSet[n] = true
	}
	for _, n := range drain(t, q) {
		delete(missingSet, n)
	}
	missing = slices.Sorted(maps.Keys(missingSet))
	for _, l := range q.Losses() {
		for n := l.First; n <= l.Last; n++ {
			if n > damageAcked && !missingSet[n] {
				t.Errorf("number %d was delivered, and is declared in %+v", n, l)
			}
			delete(missingSet, n)
		}
	}
	if err := q.Close(); err != nil {
		t.Error(err)
	}
	return next, missing, slices.Sorted(maps.Keys(missingSet))
}

func TestEveryBitFlipCostsOneRecordAtMost(t *testing.T) {
	for name, killed := range map[string]bool{"closed": false, "killed": true} {
		t.Run(name, func(t *testing.T) {
			d := smallQueue(t, killed)
			for name, n := range d.names {
				for bit := 0; bit < len(n.cache)*8; bit += bitStride {
					b := slices.Clone(n.cache)
					b[bit/8] ^= 1 << (bit % 8)
					next, missing, silent := account(t, d.with(name, b))
					if len(missing) > 1 {
						t.Fatalf("%s bit %d: records %d are gone", name, bit, missing)
					}
					// After a kill nothing but the frame says that the last record was.
					lastOfAll := killed && slices.Equal(silent, []uint64{damageRecords})
					if !lastOfAll && (len(silent) > 0 || next != damageRecords+1) {
						t.Fatalf("%s bit %d: next number %d, records %d are gone and not declared", name, bit, next, silent)
					}
				}
			}
		})
	}
}

func TestEveryTruncationIsSurvivedAndDeclared(t *testing.T) {
	d := smallQueue(t, false)
	for name, n := range d.names {
		for size := range len(n.cache) {
			next, missing, silent := account(t, d.with(name, slices.Clone(n.cache[:size])))
			if len(silent) > 0 || next != damageRecords+1 {
				t.Fatalf("%s cut to %d: next number %d, records %d are gone and not declared", name, size, next, silent)
			}
			if name == cursorName && missing != nil {
				t.Fatalf("cursor cut to %d: records %d are gone", size, missing)
			}
		}
	}
}

func TestALostFileIsDeclared(t *testing.T) {
	d := smallQueue(t, false)
	for name := range d.names {
		c := d.with(name, nil)
		delete(c.names, name)
		next, missing, silent := account(t, c)
		if len(silent) > 0 || next != damageRecords+1 || name == cursorName && missing != nil {
			t.Errorf("without %s: next number %d, records %d are gone, %d not declared", name, next, missing, silent)
		}
	}
}

func TestBytesFromElsewhereDoNotValidate(t *testing.T) {
	d, other := smallQueue(t, false), smallQueue(t, false)
	for name, n := range d.names {
		if name == cursorName {
			continue
		}
		// The first frame again, and the last one early, at every place where a
		// frame can begin: what lies between must not be passed over.
		for off := headerSize + frameAlign; off+frameSize <= len(n.cache); off += frameAlign {
			b := slices.Clone(n.cache)
			copy(b[off:], b[headerSize:headerSize+frameSize+8])
			account(t, d.with(name, b)) // checks what is delivered
			end := len(n.cache) - footerSize
			last := n.cache[lastFrame(t, n.cache[:end]):end]
			if off+len(last) < end-len(last) {
				b = slices.Clone(n.cache)
				copy(b[off:], last)
				if _, missing, _ := account(t, d.with(name, b)); len(missing) > 3 {
					t.Fatalf("%s: with its last frame at %d records %d are gone", name, off, missing)
				}
			}
		}
		// The frames of another queue's segment of that name.
		b := slices.Concat(n.cache[:headerSize], other.names[name].cache[headerSize:])
		q := openSim(t, d.with(name, b))
		records, err := q.Peek(nil, 1<<20)
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range records {
			if bytes.Contains(other.names[name].cache, r.Data) && !bytes.Contains(d.names[name].cache, r.Data) {
				t.Errorf("record %d of another queue was delivered", r.First)
			}
		}
		if s := q.Stats(); s.Records >= damageRecords-damageAcked {
			t.Errorf("%d records, with a segment of another queue", s.Records)
		}
	}
}

// lastFrame returns where the last frame of a segment lies.
func lastFrame(t *testing.T, b []byte) int {
	t.Helper()
	for off := len(b) - frameSize; off >= headerSize; off -= frameAlign {
		if b[off] == frameMagic&0xff && b[off+1] == frameMagic>>8 && b[off+2] == frameRecord {
			return off
		}
	}
	t.Fatal("no frame")
	return 0
}

// FuzzOpen gives a queue files that nobody wrote. A mutated file has its
// checksums repaired, or no mutation would get past them.
func FuzzOpen(f *testing.F) {
	d := smallQueue(f, false)
	for _, name := range slices.Sorted(maps.Keys(d.names)) {
		f.Add(name == cursorName, d.names[name].cache)
	}
	f.Add(false, []byte(headerMagic))
	f.Add(true, []byte(nil))
	f.Fuzz(func(t *testing.T, cursor bool, b []byte) {
		if len(b) > 1<<16 {
			return
		}
		name := segmentName(1)
		if cursor {
			name = cursorName
		}
		b = slices.Clone(b)
		for _, repaired := range []bool{false, true} {
			if repaired {
				repair(b, d)
			}
			q, err := open(Options{Dir: "fuzz", MaxBytes: MinBytes}, d.with(name, slices.Clone(b)))
			if err != nil {
				t.Fatal(err)
			}
			last := uint64(0)
			for {
				records, err := q.Peek(nil, 1<<10)
				if err != nil {
					t.Fatal(err)
				}
				if len(records) == 0 {
					break
				}
				for _, r := range records {
					if r.First <= last || r.Count == 0 || r.last() >= q.Next() {
						t.Fatalf("record %d+%d after number %d, next %d", r.First, r.Count, last, q.Next())
					}
					last = r.last()
				}
				if err := q.Ack(last); err != nil {
					t.Fatal(err)
				}
			}
			if s := q.Stats(); s.Records > damageRecords+uint64(len(b)) {
				t.Fatalf("a drained queue counts %+v", s)
			}
			// It may say that it is full, or out of numbers. It may not fail otherwise.
			r := Record{q.Next(), 1, []byte("on")}
			if err := q.Append(t.Context(), r); err == nil {
				got, err := q.Peek(nil, 10)
				if err != nil || len(got) != 1 || string(got[0].Data) != "on" {
					t.Fatalf("after damage the queue returns %v, %v", got, err)
				}
			}
			if err := q.Close(); err != nil {
				t.Fatal(err)
			}
		}
	})
}

// repair makes every checksum in b right that has a structure in front of it:
// header, frames, footer, and cursor slots, as of the first segment of d.
func repair(b []byte, d *simFolder) {
	m, _, _ := decodeMark(d.names[cursorName].cache[slotGap:])
	salt := saltOf(m.stream, 1)
	put := func(end int, crc uint32) {
		b[end-4], b[end-3], b[end-2], b[end-1] = byte(crc), byte(crc>>8), byte(crc>>16), byte(crc>>24)
	}
	for off := 0; off+frameSize <= len(b); off += frameAlign {
		rest := b[off:]
		switch {
		case len(rest) >= headerSize && string(rest[:8]) == headerMagic:
			copy(rest[16:32], m.stream[:])
			put(off+64, sum(0, 0, rest[:60]))
		case len(rest) >= footerSize && string(rest[:8]) == footerMagic:
			put(off+64, sum(salt, int64(off), rest[:60]))
		case len(rest) >= slotSize && string(rest[:8]) == slotMagic:
			copy(rest[16:32], m.stream[:])
			put(off+slotSize, sum(0, 0, rest[:slotSize-4]))
		case rest[0] == frameMagic&0xff && rest[1] == frameMagic>>8:
			if n := int(rest[4]) | int(rest[5])<<8; frameSize+n <= len(rest) {
				crc := sum(0, 0, rest[frameSize:frameSize+n])
				rest[24], rest[25], rest[26], rest[27] = byte(crc), byte(crc>>8), byte(crc>>16), byte(crc>>24)
			}
			put(off+frameSize, sum(salt, int64(off), rest[:28]))
		}
	}
}
