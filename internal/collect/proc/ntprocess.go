package proc

import (
	"encoding/binary"
	"errors"
	"time"
	"unicode/utf16"

	"github.com/rea-agent/rea/internal/event"
)

// What NtQuerySystemInformation writes for SystemProcessInformation on 64-bit
// Windows, and golang.org/x/sys/windows declares as SYSTEM_PROCESS_INFORMATION:
// a chain of processes, each followed by its threads.
const (
	ntNext         = 0 // uint32: to the next process; 0 in the last
	ntThreads      = 4 // uint32
	ntPrivate      = 8 // private working set
	ntCreated      = 32
	ntUserTime     = 40
	ntKernelTime   = 48
	ntName         = 56 // UNICODE_STRING
	ntPID          = 80
	ntParent       = 88
	ntHandles      = 96 // uint32
	ntVirtual      = 120
	ntWorkingSet   = 144
	ntPrivatePages = 200 // in bytes, in spite of its name: the private commit
	ntRead         = 232
	ntWritten      = 240
	ntProcessSize  = 256

	// SYSTEM_THREAD_INFORMATION
	ntThreadState = 68 // uint32, of the KTHREAD_STATE values
	ntWaitReason  = 72 // uint32, of the KWAIT_REASON values
	ntThreadSize  = 80

	threadReady, threadRunning, threadStandby = 1, 2, 3
	threadWaiting, threadDeferredReady        = 5, 7
	waitSuspended, waitWrSuspended            = 5, 12
)

var errChain = errors.New("the chain of processes leaves its buffer")

// An ntProcess is one process of the chain. name is UTF-16LE and a part of the
// buffer.
type ntProcess struct {
	pid uint32
	facts
	name      []byte
	private   uint64
	committed uint64
	handles   uint64
	read      uint64
	written   uint64
}

// ntScan shows the processes of buf, which the system filled at address base,
// to t. The first of them, pid 0, is where Windows books the time in which
// processors idle: it is not a process and left out.
func ntScan(buf []byte, base uint64, t *table) error {
	for {
		p, rest, err := nextProcess(buf, base)
		if err != nil {
			return err
		}
		if p.pid != 0 {
			p.show(t)
		}
		if len(rest) == 0 {
			return nil
		}
		base += uint64(len(buf) - len(rest))
		buf = rest
	}
}

// nextProcess reads the process at the start of buf, which lies at address
// base, and returns what follows it. Each step goes forward by a process at
// least, so that a chain always ends.
func nextProcess(buf []byte, base uint64) (p ntProcess, rest []byte, err error) {
	if len(buf) < ntProcessSize {
		return ntProcess{}, nil, errChain
	}
	all := buf
	if n := u32(buf, ntNext); n != 0 {
		if n < ntProcessSize || n > uint64(len(buf)) {
			return ntProcess{}, nil, errChain
		}
		buf, rest = buf[:n], buf[n:]
		if len(rest) == 0 {
			return ntProcess{}, nil, errChain
		}
	}
	p = ntProcess{
		pid:       uint32(u64(buf, ntPID)),
		name:      unicodeString(all, ntName, base),
		private:   u64(buf, ntPrivate),
		committed: u64(buf, ntPrivatePages),
		handles:   u32(buf, ntHandles),
		read:      u64(buf, ntRead),
		written:   u64(buf, ntWritten),
	}
	p.facts = facts{
		parent:   uint32(u64(buf, ntParent)),
		start:    u64(buf, ntCreated),
		cpu:      hundredNanoseconds(u64(buf, ntUserTime)) + hundredNanoseconds(u64(buf, ntKernelTime)),
		threads:  u32(buf, ntThreads),
		resident: u64(buf, ntWorkingSet),
		virtual:  u64(buf, ntVirtual),
	}
	p.state = stateOfThreads(buf[ntProcessSize:], p.threads)
	return p, rest, nil
}

// stateOfThreads says what a process does from what its threads do, since
// Windows has no states of processes: it runs if one of them has or wants a
// processor, and is stopped if all are suspended, as those of an app in the
// background are.
func stateOfThreads(b []byte, n uint64) state {
	if n == 0 || n > uint64(len(b)/ntThreadSize) {
		return unknown
	}
	suspended := uint64(0)
	for range n {
		switch u32(b, ntThreadState) {
		case threadReady, threadRunning, threadStandby, threadDeferredReady:
			return running
		case threadWaiting:
			if r := u32(b, ntWaitReason); r == waitSuspended || r == waitWrSuspended {
				suspended++
			}
		}
		b = b[ntThreadSize:]
	}
	if suspended == n {
		return stopped
	}
	return sleeping
}

// show gives p to t, and what Linux tells only of listed processes as well.
func (p *ntProcess) show(t *table) {
	to := t.at(p.pid)
	if t.see(to, &p.facts) {
		to.held = held{}
		to.name = utf16String(p.name)
		to.born = filetime(p.start)
	}
	to.private = event.Known(p.private)
	to.committed = event.Known(p.committed)
	to.handles = event.Known(p.handles)
	to.read.set(p.read, t.reading)
	to.written.set(p.written, t.reading)
}

// unicodeString returns what the UNICODE_STRING at offset at of buf points to.
// Its pointer is an address and must lie in buf, which begins at base; what
// points elsewhere is empty.
func unicodeString(buf []byte, at int, base uint64) []byte {
	const lengthSize, pointerAt = 2, 8
	if at+16 > len(buf) {
		return nil
	}
	n := uint64(binary.LittleEndian.Uint16(buf[at : at+lengthSize]))
	from := u64(buf, at+pointerAt) - base // wraps to something large if it is less
	if from > uint64(len(buf)) || n > uint64(len(buf))-from {
		return nil
	}
	return buf[from : from+n]
}

func utf16String(b []byte) string {
	units := make([]uint16, len(b)/2)
	for i := range units {
		units[i] = binary.LittleEndian.Uint16(b[2*i:])
	}
	return string(utf16.Decode(units))
}

// filetime turns a FILETIME, which counts 100 ns from 1601, into a time. 0 and
// what cannot be one is the zero time.
func filetime(v uint64) time.Time {
	const perSecond = 1e7
	const to1970 = 11644473600 // seconds
	if v == 0 || v > 1<<62 {
		return time.Time{}
	}
	return time.Unix(int64(v/perSecond)-to1970, int64(v%perSecond)*100)
}

func hundredNanoseconds(v uint64) time.Duration {
	return time.Duration(min(v, 1<<53)) * 100
}

func u32(b []byte, at int) uint64 { return uint64(binary.LittleEndian.Uint32(b[at:])) }
func u64(b []byte, at int) uint64 { return binary.LittleEndian.Uint64(b[at:]) }
