package proc

import (
	"bytes"
	"encoding/binary"
	"errors"
	"math"
	"time"

	"github.com/rea-agent/rea/internal/procfs"
)

// tick is the unit of the times in /proc/<pid>/stat. The kernel counts them in
// USER_HZ, which is 100 on every architecture that Go runs on (it was 1024 on
// Alpha and IA-64 only).
const tick = time.Second / 100

// kernelThread is PF_KTHREAD of the flags in /proc/<pid>/stat (linux/sched.h). The
// parent would tell less: in a container pid 2 is a process like any other.
const kernelThread = 0x00200000

var (
	errStat   = errors.New("stat is not as in proc_pid_stat(5)")
	errStatm  = errors.New("statm is not as in proc_pid_statm(5)")
	errIO     = errors.New("io is not as in proc_pid_io(5)")
	errStatus = errors.New("status has no Uid line")
	errCPUs   = errors.New("not a list of processors")
)

// parseStat reads the line of /proc/<pid>/stat, and the name in it as a part of
// line. The name may hold spaces, parentheses and line ends, so it ends with
// the last parenthesis.
func parseStat(line []byte, pageSize uint64) (f facts, name []byte, err error) {
	from, to := bytes.IndexByte(line, '('), bytes.LastIndexByte(line, ')')
	if from < 0 || to < from || to+3 >= len(line) {
		return facts{}, nil, errStat
	}
	name = line[from+1 : to]
	f.state = stateOf(line[to+2])
	w := words(line[to+3:])
	f.parent = uint32(w.number()) // field 4
	w.skip(4)                     // 5 to 8
	f.kernel = w.number()&kernelThread != 0
	w.skip(4) // 10 to 13
	user, system := w.number(), w.number()
	w.skip(4) // 16 to 19
	f.threads = w.number()
	w.skip(1) // 21
	f.start = w.number()
	f.virtual = w.number()
	f.resident = w.number() * pageSize // field 24
	const most = math.MaxInt64 / 2 / uint64(tick)
	if w == nil || user > most || system > most {
		return facts{}, nil, errStat
	}
	f.cpu = time.Duration(user+system) * tick
	return f, name, nil
}

// stateOf names the letter of field 3; fs/proc/array.c lists them.
func stateOf(letter byte) state {
	switch letter {
	case 'R':
		return running
	case 'S':
		return sleeping
	case 'D':
		return blocked
	case 'T', 't':
		return stopped
	case 'Z', 'X':
		return zombie
	case 'I', 'P':
		return idle
	}
	return unknown
}

// words is a line of words between single spaces that is being read. It is nil
// once something in it was not what was asked for.
type words []byte

// next cuts off one word, or makes w nil.
func (w *words) next() []byte {
	line := *w
	for len(line) > 0 && line[0] == ' ' {
		line = line[1:]
	}
	n := 0
	for n < len(line) && line[n] > ' ' {
		n++
	}
	if n == 0 {
		*w = nil
		return nil
	}
	*w = line[n:]
	return line[:n]
}

func (w *words) skip(n int) {
	for range n {
		w.next()
	}
}

func (w *words) number() uint64 {
	v, ok := procfs.Uint(w.next())
	if !ok {
		*w = nil
	}
	return v
}

// parsePID reads the name of a directory of /proc.
func parsePID(name []byte) (uint32, bool) {
	v, ok := procfs.Uint(name)
	return uint32(v), ok && v > 0 && v <= math.MaxInt32
}

// parseStatm returns the pages of /proc/<pid>/statm that are resident and
// shared with no file: resident less shared, which the kernel counts as RssAnon.
func parseStatm(line []byte) (uint64, error) {
	w := words(line)
	w.skip(1)
	resident, shared := w.number(), w.number()
	if w == nil || shared > resident {
		return 0, errStatm
	}
	return resident - shared, nil
}

// parseIO returns what /proc/<pid>/io says was fetched from and sent to storage.
func parseIO(text []byte) (read, written uint64, err error) {
	read, ok := lineNumber(text, "\nread_bytes: ")
	written, ok2 := lineNumber(text, "\nwrite_bytes: ")
	if !ok || !ok2 {
		return 0, 0, errIO
	}
	return read, written, nil
}

// parseUID returns the effective user id, the second of /proc/<pid>/status.
func parseUID(text []byte) (uint32, error) {
	_, rest, _ := bytes.Cut(text, []byte("\nUid:\t"))
	rest, _, _ = bytes.Cut(rest, []byte("\n"))
	_, rest, _ = bytes.Cut(rest, []byte("\t"))
	field, _, _ := bytes.Cut(rest, []byte("\t"))
	v, ok := procfs.Uint(field)
	if !ok || v > math.MaxUint32 {
		return 0, errStatus
	}
	return uint32(v), nil
}

// parseNewest returns the last word of /proc/loadavg, or 0.
func parseNewest(line []byte) uint64 {
	line = bytes.TrimSpace(line)
	n, _ := procfs.Uint(line[bytes.LastIndexByte(line, ' ')+1:])
	return n
}

// countNSpids returns how many pids a process has according to its status: one in
// each namespace from that of /proc down to its own.
func countNSpids(status []byte) (n int) {
	_, rest, _ := bytes.Cut(status, []byte("\nNSpid:"))
	line, _ := procfs.Line(rest)
	for word, rest := procfs.Field(line); len(word) > 0; word, rest = procfs.Field(rest) {
		n++
	}
	return n
}

// lineNumber returns the number between key and the end of its line.
func lineNumber(text []byte, key string) (uint64, bool) {
	i := bytes.Index(text, []byte(key))
	if i < 0 {
		return 0, false
	}
	line, _, _ := bytes.Cut(text[i+len(key):], []byte("\n"))
	return procfs.Uint(line)
}

// parseCPUs counts the members of a list as in cputopology: "0-3,8\n".
func parseCPUs(list []byte) (int, error) {
	list, n := bytes.TrimSpace(list), 0
	for more := true; more; {
		var span []byte
		span, list, more = bytes.Cut(list, []byte(","))
		from, to, ok := bytes.Cut(span, []byte("-"))
		if !ok {
			to = from
		}
		first, ok := procfs.Uint(from)
		last, ok2 := procfs.Uint(to)
		if !ok || !ok2 || first > last || last > math.MaxUint16 {
			return 0, errCPUs
		}
		n += int(last-first) + 1
	}
	return n, nil
}

// parseCommand turns the arguments of /proc/<pid>/cmdline, each ended by a NUL,
// into one line.
func parseCommand(args []byte) string {
	args = bytes.TrimRight(args, "\x00")
	return string(bytes.ReplaceAll(args, []byte{0}, []byte{' '}))
}

// parsePasswd returns the names of passwd(5) by user id. The first line of an
// id is the one that counts, as for getpwuid(3).
func parsePasswd(text []byte) map[uint32]string {
	names := make(map[uint32]string)
	for line := range bytes.Lines(text) {
		name, rest, _ := bytes.Cut(line, []byte(":"))
		_, rest, _ = bytes.Cut(rest, []byte(":"))
		id, _, ok := bytes.Cut(rest, []byte(":"))
		v, isNumber := procfs.Uint(id)
		if !ok || !isNumber || v > math.MaxUint32 || len(name) == 0 {
			continue
		}
		if _, taken := names[uint32(v)]; !taken {
			names[uint32(v)] = string(name)
		}
	}
	return names
}

// nextEntry cuts the first entry off what getdents64(2) returned: inode and
// offset of 8 bytes each, the length of the entry, a type, and the name up to a
// NUL. ok is false at the end, and where the rest is not an entry.
func nextEntry(b []byte) (name, rest []byte, ok bool) {
	const lengthAt, nameAt = 16, 19
	if len(b) < nameAt {
		return nil, nil, false
	}
	n := int(binary.NativeEndian.Uint16(b[lengthAt:]))
	if n < nameAt || n > len(b) {
		return nil, nil, false
	}
	name = b[nameAt:n]
	if i := bytes.IndexByte(name, 0); i >= 0 {
		name = name[:i]
	}
	return name, b[n:], true
}
