package proc

import (
	"bytes"
	"encoding/binary"
	"errors"
	"testing"
	"time"
	"unicode/utf16"

	"github.com/google/go-cmp/cmp"
)

const ntBase = 0x7ff6_1000_0000 // where the buffer of the tests lies

// An ntThread is a KTHREAD_STATE and a KWAIT_REASON.
type ntThread struct{ state, reason uint32 }

// An ntFake is a process of a Windows machine that a test lays out.
type ntFake struct {
	pid, parent                          uint64
	name                                 string
	created, user, kernel                uint64 // 100 ns
	workingSet, private, commit, virtual uint64
	handles                              uint32
	read, written                        uint64
	threads                              []ntThread
}

// ntBuffer lays out processes as the system does, in a buffer at ntBase.
func ntBuffer(ps ...ntFake) []byte {
	var buf []byte
	for i, p := range ps {
		at := len(buf)
		b := make([]byte, ntProcessSize+ntThreadSize*len(p.threads))
		le := binary.LittleEndian
		le.PutUint32(b[ntThreads:], uint32(len(p.threads)))
		for at, v := range map[int]uint64{
			ntPrivate: p.private, ntCreated: p.created, ntUserTime: p.user, ntKernelTime: p.kernel, ntPID: p.pid,
			ntParent: p.parent, ntVirtual: p.virtual, ntWorkingSet: p.workingSet, ntPrivatePages: p.commit,
			ntRead: p.read, ntWritten: p.written,
		} {
			le.PutUint64(b[at:], v)
		}
		le.PutUint32(b[ntHandles:], p.handles)
		for j, t := range p.threads {
			le.PutUint32(b[ntProcessSize+j*ntThreadSize+ntThreadState:], t.state)
			le.PutUint32(b[ntProcessSize+j*ntThreadSize+ntWaitReason:], t.reason)
		}
		if name := utf16.Encode([]rune(p.name)); len(name) > 0 {
			le.PutUint16(b[ntName:], uint16(2*len(name)))
			le.PutUint16(b[ntName+2:], uint16(2*len(name)+2))
			le.PutUint64(b[ntName+8:], ntBase+uint64(at+len(b)))
			for _, u := range append(name, 0) {
				b = le.AppendUint16(b, u)
			}
		}
		b = append(b, make([]byte, -len(b)&7)...)
		if i < len(ps)-1 {
			le.PutUint32(b[ntNext:], uint32(len(b)))
		}
		buf = append(buf, b...)
	}
	return buf
}

var ntService = ntFake{
	pid: 1234, parent: 700, name: "svc-höst.exe", created: 126_000_000_000_000_000, user: 30_000_000, kernel: 20_000_000,
	workingSet: 9 << 20, private: 4 << 20, commit: 6 << 20, virtual: 2 << 40, handles: 321, read: 4096, written: 512,
	threads: []ntThread{{threadWaiting, 6}, {threadWaiting, waitSuspended}},
}

func TestNTScanReadsTheFields(t *testing.T) {
	table := newTable()
	table.begin(time.Time{})
	if err := ntScan(ntBuffer(ntFake{threads: []ntThread{{threadRunning, 0}}}, ntService), ntBase, &table); err != nil {
		t.Fatal(err)
	}
	if len(table.byPID) != 1 {
		t.Fatalf("%d processes, want 1: the idle process is none", len(table.byPID))
	}
	p := table.byPID[1234]
	want := facts{
		parent: 700, start: 126_000_000_000_000_000, cpu: 5 * time.Second, threads: 2,
		resident: 9 << 20, virtual: 2 << 40, state: sleeping,
	}
	if d := cmp.Diff(want, p.facts, cmp.AllowUnexported(facts{})); d != "" {
		t.Error(d)
	}
	got := []uint64{p.private.V, p.committed.V, p.handles.V, p.read.total.V, p.written.total.V}
	if d := cmp.Diff([]uint64{4 << 20, 6 << 20, 321, 4096, 512}, got); d != "" || p.name != "svc-höst.exe" {
		t.Errorf("name %q\n%s", p.name, d)
	}
	// 126e15 / 1e7 s after 1601 is 955526400 s after 1970.
	if !p.born.Equal(time.Unix(955526400, 0)) {
		t.Errorf("born %v", p.born)
	}
}

func TestStateOfThreads(t *testing.T) {
	wait := func(reason uint32) ntThread { return ntThread{threadWaiting, reason} }
	for name, c := range map[string]struct {
		threads []ntThread
		want    state
	}{
		"no thread left":       {nil, unknown},
		"one runs":             {[]ntThread{wait(6), {threadRunning, 0}}, running},
		"one is ready":         {[]ntThread{{threadReady, 0}, wait(6)}, running},
		"one will be ready":    {[]ntThread{{threadDeferredReady, 0}}, running},
		"all wait":             {[]ntThread{wait(6), wait(15)}, sleeping},
		"all are suspended":    {[]ntThread{wait(5), wait(12)}, stopped},
		"some are suspended":   {[]ntThread{wait(5), wait(6)}, sleeping},
		"waits for its memory": {[]ntThread{{6, 0}}, sleeping},
	} {
		buf := ntBuffer(ntFake{pid: 4, threads: c.threads})
		if p, _, err := nextProcess(buf, ntBase); p.state != c.want || err != nil {
			t.Errorf("%s: %s, %v", name, stateNames[p.state], err)
		}
	}
}

func TestNTScanRefusesAChainThatLeavesItsBuffer(t *testing.T) {
	two := ntBuffer(ntService, ntService)
	next := int(binary.LittleEndian.Uint32(two))
	link := func(v int) []byte {
		b := bytes.Clone(two)
		binary.LittleEndian.PutUint32(b, uint32(v))
		return b
	}
	for name, buf := range map[string][]byte{
		"empty":             nil,
		"cut in the first":  two[:ntProcessSize-1],
		"cut in the second": two[:next+ntProcessSize-1],
		"ends at the link":  two[:next],
		"link into itself":  link(8),
		"link to the end":   link(len(two)),
		"link past the end": link(len(two) + 8),
		"link to far away":  link(0xffff_fff8),
	} {
		table := newTable()
		table.begin(time.Time{})
		if err := ntScan(buf, ntBase, &table); !errors.Is(err, errChain) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestANameOutsideTheBufferIsAbsent(t *testing.T) {
	for name, address := range map[string]uint64{
		"null": 0, "before": ntBase - 2, "after": ntBase + 1<<20, "over the end": ntBase + 400, "the last address": ^uint64(0),
	} {
		buf := ntBuffer(ntService)
		binary.LittleEndian.PutUint64(buf[ntName+8:], address)
		binary.LittleEndian.PutUint16(buf[ntName:], 512)
		if p, _, err := nextProcess(buf, ntBase); len(p.name) != 0 || err != nil {
			t.Errorf("%s: %q, %v", name, p.name, err)
		}
	}
}

func TestMoreThreadsThanTheBufferHoldsAreNoState(t *testing.T) {
	buf := ntBuffer(ntService)
	binary.LittleEndian.PutUint32(buf[ntThreads:], 1<<31)
	if p, _, err := nextProcess(buf, ntBase); p.state != unknown || err != nil {
		t.Errorf("%s, %v", stateNames[p.state], err)
	}
}

func TestFiletime(t *testing.T) {
	for v, want := range map[uint64]time.Time{
		0:                       {},
		^uint64(0):              {},
		116_444_736_000_000_000: time.Unix(0, 0),
		116_444_736_000_000_015: time.Unix(0, 1500),
	} {
		if got := filetime(v); !got.Equal(want) {
			t.Errorf("%d: %v, want %v", v, got, want)
		}
	}
}

func FuzzNTScan(f *testing.F) {
	f.Add(ntBuffer(ntFake{threads: []ntThread{{threadRunning, 0}}}, ntService), uint64(ntBase))
	f.Add(ntBuffer(ntService, ntService)[:600], uint64(ntBase))
	f.Add(make([]byte, ntProcessSize), uint64(0))
	f.Fuzz(func(t *testing.T, buf []byte, base uint64) {
		table := newTable()
		table.begin(time.Time{})
		err := ntScan(buf, base, &table)
		if len(table.byPID) > len(buf)/ntProcessSize {
			t.Errorf("%d processes in %d bytes, %v", len(table.byPID), len(buf), err)
		}
		for _, p := range table.byPID {
			if p.cpu < 0 || p.state >= states || p.pid == 0 {
				t.Errorf("%+v", p)
			}
		}
	})
}

func BenchmarkNTScan(b *testing.B) {
	ps := make([]ntFake, 300)
	for i := range ps {
		ps[i] = ntService
		ps[i].pid = uint64(4 * (i + 1))
	}
	buf := ntBuffer(ps...)
	table := newTable()
	b.ReportAllocs()
	for b.Loop() {
		table.begin(time.Time{})
		if err := ntScan(buf, ntBase, &table); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*len(ps)), "ns/process")
}
