package proc

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/rea-agent/rea/internal/event"
	"github.com/rea-agent/rea/internal/procfs"
	"golang.org/x/sys/unix"
)

// A descriptor is what is held of a file: one more than its number, so that the
// zero value is none. denied is a file of a process that may not be opened.
type descriptor int32

const denied descriptor = -1

func (d descriptor) isOpen() bool { return d > 0 }
func (d descriptor) fd() int      { return int(d) - 1 }

// held is what is kept of a process. A descriptor of a file in /proc/<pid>
// belongs to that very process: when it has gone, reading gives ESRCH, even if
// another has its pid by then.
type held struct {
	path    string // of stat, below /proc
	stat    descriptor
	paths   *paths     // nil until it is listed
	statm   descriptor // this and the next two only while it is listed
	io      descriptor
	fd      descriptor
	turns   *turns // nil but for threads of the kernel
	settled bool   // user and command line need not be read again
}

// turns is what /proc/<pid>/schedstat said of a thread of the kernel: how long it
// ran, how long it waited for a processor, and how often it was given one.
type turns struct {
	path   string
	file   descriptor
	said   []byte
	silent bool // nothing can be learned from it; not asked again
}

// paths are the other files of a process. As path, they are made once because
// making them allocates.
type paths struct{ statm, io, fd, status, cmdline string }

// relist is how old the list of processes may become although no pid was given
// out. A process can come without: restored with the pid that it had (clone3(2),
// set_tid), or, where hidepid is set, by becoming one of this user's.
const relist = time.Minute

// linux reads the processes of a Linux machine.
type linux struct {
	root     string // "/", or where a test lays out another machine
	cfg      Config
	pageSize uint64
	maxHeld  int
	held     int  // descriptors of files of processes
	counts   bool // the size of /proc/<pid>/fd is how many descriptors are open
	boot     time.Time
	proc     descriptor  // of /proc
	alone    bool        // the pids of /proc are those of this process's own namespace
	loadavg  procfs.File // tells the pid that was given out last
	newest   uint64      // that pid, when all processes were listed and read; 0 if not known
	listedAt time.Time   // when that was
	online   procfs.File // lists the processors on line
	listed   []*process  // in the reading before
	users    passwd

	entries []byte
	text    []byte
	info    unix.Stat_t
}

func newSystem(cfg Config) system { return newLinux(cfg, "/") }

func newLinux(cfg Config, root string) *linux {
	return &linux{
		root:     root,
		cfg:      cfg,
		pageSize: uint64(os.Getpagesize()),
		maxHeld:  maxHeld(),
		loadavg:  procfs.File{Path: filepath.Join(root, "proc/loadavg")},
		online:   procfs.File{Path: filepath.Join(root, "sys/devices/system/cpu/online")},
		users:    passwd{path: filepath.Join(root, "etc/passwd")},
		entries:  make([]byte, 32<<10),
		text:     make([]byte, 4<<10),
	}
}

// linuxStates are the states that Linux tells apart.
var linuxStates = []state{running, sleeping, blocked, stopped, zombie, idle}

func (s *linux) states() []state { return linuxStates }

func maxHeld() int {
	const most = 1024
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		return 0 // hold none: slower, and never wrong
	}
	return int(min(limit.Cur/4, most))
}

// scan looks at every process. They are listed only when a pid was given out since
// they were listed last: on a quiet machine a quarter of the work would be to learn
// that there is nobody new. Who has gone shows when it is looked at.
func (s *linux) scan(t *table) error {
	newest := s.newestPID() // before the list: who comes after it is found the next time
	if newest != 0 && newest == s.newest && t.now.Sub(s.listedAt) < relist {
		for pid := range t.byPID {
			s.look(t, pid)
		}
	} else if err := s.list(t); err != nil {
		s.newest = 0
		return err
	} else {
		s.newest, s.listedAt = newest, t.now
	}
	if t.unread.n > 0 {
		s.newest = 0 // the table does not know those
	}
	return nil
}

// newestPID returns the pid that was given out last, to a process or a thread, in
// the namespace of this process (proc_loadavg(5)), or 0 where that tells nothing of
// the processes that /proc shows.
func (s *linux) newestPID() uint64 {
	if !s.alone {
		return 0
	}
	text, err := s.loadavg.Read(&s.entries)
	if err != nil {
		return 0
	}
	return parseNewest(text)
}

// list looks at every process that /proc lists.
func (s *linux) list(t *table) error {
	err := s.rewind()
	for err == nil {
		var n int
		n, err = unix.Getdents(s.proc.fd(), s.entries)
		if n == 0 && err == nil {
			return nil
		}
		name, rest, ok := nextEntry(s.entries[:max(n, 0)])
		for ; ok; name, rest, ok = nextEntry(rest) {
			if pid, isPID := parsePID(name); isPID {
				s.look(t, pid)
			}
		}
	}
	s.drop(&s.proc)
	return fmt.Errorf("list %s: %w", filepath.Join(s.root, "proc"), err)
}

// rewind makes the next Getdents begin at the first entry of /proc.
func (s *linux) rewind() error {
	if s.proc.isOpen() {
		_, err := unix.Seek(s.proc.fd(), 0, io.SeekStart)
		return err
	}
	fd, err := unix.Open(filepath.Join(s.root, "proc"), unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	s.proc = descriptor(fd + 1)
	s.counts = s.countsDescriptors()
	s.alone = s.isAlone()
	return nil
}

// isAlone reports whether /proc shows the namespace of pids that this process is
// in, and not one above it, as the /proc of the host does in a container.
func (s *linux) isAlone() bool {
	var d descriptor
	text, err := s.read(&d, "self/status")
	s.release(&d)
	return err == nil && countNSpids(text) == 1
}

// countsDescriptors reports whether the size of the directory fd is the number
// of open descriptors, as it is since Linux 6.2 (filesystems/proc.rst). Unlike
// listing them, that needs no right over the process.
func (s *linux) countsDescriptors() bool {
	var fs unix.Statfs_t
	if err := unix.Fstatfs(s.proc.fd(), &fs); err != nil || fs.Type != unix.PROC_SUPER_MAGIC {
		return false
	}
	err := unix.Fstatat(s.proc.fd(), "self/fd", &s.info, 0)
	return err == nil && s.info.Size > 0
}

// look takes the stat line of one process. One that vanished since it was
// listed is no error: it is not there.
func (s *linux) look(t *table, pid uint32) {
	p := t.at(pid)
	if s.rested(p) {
		t.see(p, &p.facts)
		return
	}
	if p.held.path == "" {
		p.held.path = strconv.FormatUint(uint64(pid), 10) + "/stat"
	}
	line, err := s.read(&p.held.stat, p.held.path)
	if errors.Is(err, unix.ESRCH) && p.seen != 0 { // the pid may be another's by now
		s.forget(p)
		line, err = s.read(&p.held.stat, p.held.path)
	}
	var f facts
	var name []byte
	if err == nil {
		f, name, err = parseStat(line, s.pageSize)
	}
	if err != nil {
		if !gone(err) {
			t.unread.add(err)
		}
		return
	}
	if p.isNew(f.start) {
		s.unlist(p)
	}
	if t.see(p, &f) || p.name != string(name) { // new, or running another program now
		p.name, p.held.settled = string(name), false
	}
	switch has := p.held.turns != nil; {
	case f.kernel && !has:
		p.held.turns = &turns{path: strings.TrimSuffix(p.held.path, "stat") + "schedstat"}
	case has && !f.kernel:
		s.release(&p.held.turns.file)
		p.held.turns = nil
	}
}

// rested reports whether p is a thread of the kernel that had no processor since
// its stat line was read, so that the line can say nothing new. Half of the
// processes of a quiet machine are such threads, and asking that is less than half
// the work of reading the line. It is asked before the line is read, so a turn
// between the two is seen the next time.
//
// Other processes are always read: schedstat tells of one thread of theirs, and the
// kernel takes memory from those that rest.
func (s *linux) rested(p *process) bool {
	k := p.held.turns
	if k == nil || k.silent || p.seen == 0 {
		return false
	}
	compare := k.file.isOpen() // else the pid may be another's by now
	if !compare && s.held >= s.maxHeld {
		return false
	}
	said, err := s.read(&k.file, k.path)
	if err != nil || string(said) == "0 0 0\n" { // no thread never ran: this kernel does not count
		k.silent = true
		s.release(&k.file)
		return false
	}
	compare = compare && bytes.Equal(said, k.said)
	k.said = append(k.said[:0], said...)
	return compare
}

// details reads what only listed processes are asked for, and closes what was
// kept for it of those that are listed no more.
func (s *linux) details(listed []*process, t *table, errs []string) []string {
	for _, p := range s.listed {
		if p.listed != t.reading {
			s.unlist(p)
		}
	}
	s.listed = append(s.listed[:0], listed...)
	private := tally{field: "private_bytes"}
	moved := tally{field: "read_bytes, write_bytes"}
	open := tally{field: "descriptors"}
	for _, p := range listed {
		if p.held.paths == nil {
			dir, _ := strings.CutSuffix(p.held.path, "stat")
			p.held.paths = &paths{dir + "statm", dir + "io", dir + "fd", dir + "status", dir + "cmdline"}
		}
		private.note(s.readPrivate(p))
		moved.note(s.readIO(p, t.reading))
		open.note(s.readDescriptors(p))
	}
	errs = open.report(moved.report(private.report(errs)))
	return s.identify(listed, t.now, s.startTimes(listed, errs))
}

// readPrivate takes resident less shared of statm, which is RssAnon of status at
// a third of the cost; smaps_rollup would be exact, and walks the page tables.
func (s *linux) readPrivate(p *process) error {
	p.private = event.Maybe[uint64]{}
	text, err := s.read(&p.held.statm, p.held.paths.statm)
	if err != nil {
		return err
	}
	pages, err := parseStatm(text)
	if err == nil {
		p.private = event.Known(pages * s.pageSize)
	}
	return err
}

func (s *linux) readIO(p *process, reading uint64) error {
	text, err := s.read(&p.held.io, p.held.paths.io)
	var read, written uint64
	if err == nil {
		read, written, err = parseIO(text)
	}
	if err != nil {
		p.read, p.written = counter{}, counter{}
		return err
	}
	p.read.set(read, reading)
	p.written.set(written, reading)
	return nil
}

func (s *linux) readDescriptors(p *process) error {
	p.descriptors = event.Maybe[uint64]{}
	flags := unix.O_RDONLY | unix.O_DIRECTORY
	if s.counts {
		flags = unix.O_PATH
	}
	err := s.hold(&p.held.fd, p.held.paths.fd, flags)
	if err != nil {
		return err
	}
	var n uint64
	if s.counts {
		err = unix.Fstat(p.held.fd.fd(), &s.info)
		n = uint64(s.info.Size)
	} else {
		n, err = s.countEntries(p.held.fd)
	}
	if err == nil {
		p.descriptors = event.Known(n)
	}
	s.spare(&p.held.fd, err)
	return err
}

// countEntries counts what a directory holds besides itself and its parent.
func (s *linux) countEntries(d descriptor) (count uint64, err error) {
	if _, err := unix.Seek(d.fd(), 0, io.SeekStart); err != nil {
		return 0, err
	}
	for {
		n, err := unix.Getdents(d.fd(), s.entries)
		if n <= 0 || err != nil {
			return count, err
		}
		name, rest, ok := nextEntry(s.entries[:n])
		for ; ok; name, rest, ok = nextEntry(rest) {
			if string(name) != "." && string(name) != ".." {
				count++
			}
		}
	}
}

// startTimes counts from btime of /proc/stat, which is in whole seconds. It is
// read once, so that a process has the same start time in every event.
func (s *linux) startTimes(listed []*process, errs []string) []string {
	if s.boot.IsZero() && len(listed) > 0 {
		text, err := os.ReadFile(filepath.Join(s.root, "proc/stat"))
		if err == nil {
			s.boot, err = procfs.BootTime(text)
		}
		if err != nil {
			return append(errs, "start_time: "+err.Error())
		}
	}
	for _, p := range listed {
		if p.born.IsZero() {
			p.born = s.boot.Add(time.Duration(p.start) * tick)
		}
	}
	return errs
}

// identify reads who runs a process and how it was called, as far as that is
// wanted. Both stay, but a young process is likely to be between fork and exec,
// or about to give up its rights, and is read again.
func (s *linux) identify(listed []*process, now time.Time, errs []string) []string {
	const young = 10 * time.Second
	users, commands := tally{field: "user"}, tally{field: "command_line"}
	for _, p := range listed {
		if p.held.settled {
			continue
		}
		var userErr, commandErr error
		if s.cfg.Users {
			userErr = s.readUser(p)
			users.note(userErr)
		}
		if s.cfg.CommandLines {
			commandErr = s.readCommand(p)
			commands.note(commandErr)
		}
		age := now.Sub(p.born)
		old := age > young || age < 0 // less than 0: the clock was set back
		p.held.settled = old && userErr == nil && commandErr == nil
	}
	return commands.report(users.report(errs))
}

func (s *linux) readUser(p *process) error {
	p.user = ""
	var d descriptor
	text, err := s.read(&d, p.held.paths.status)
	s.release(&d)
	if err != nil {
		return err
	}
	uid, err := parseUID(text)
	if err != nil {
		return err
	}
	p.user, err = s.users.name(uid)
	return err
}

func (s *linux) readCommand(p *process) error {
	var d descriptor
	text, err := s.read(&d, p.held.paths.cmdline)
	s.release(&d)
	p.command = parseCommand(text)
	return err
}

// passwd knows the names in a passwd file, which it reads again when it changed.
type passwd struct {
	path    string
	changed time.Time
	names   map[uint32]string
}

// name returns the name of a user, or the number of one who has none. An error
// is why there are no names; the number is good all the same.
func (u *passwd) name(uid uint32) (string, error) {
	err := u.refresh()
	if name, ok := u.names[uid]; ok {
		return name, err
	}
	return strconv.FormatUint(uint64(uid), 10), err
}

func (u *passwd) refresh() error {
	info, err := os.Stat(u.path)
	if err != nil || info.ModTime().Equal(u.changed) {
		return err
	}
	text, err := os.ReadFile(u.path)
	if err != nil {
		return err
	}
	u.names, u.changed = parsePasswd(text), info.ModTime()
	return nil
}

// cpus counts the processors on line.
func (s *linux) cpus() (int, error) {
	list, err := s.online.Read(&s.entries)
	if err != nil {
		return 0, err
	}
	return parseCPUs(list)
}

// read returns the start of a file of a process, as much as s.text holds, which
// is good until the next call. The file stays open in d.
func (s *linux) read(d *descriptor, path string) ([]byte, error) {
	if err := s.hold(d, path, unix.O_RDONLY); err != nil {
		return nil, err
	}
	n, err := unix.Pread(d.fd(), s.text, 0)
	s.spare(d, err)
	return s.text[:max(n, 0)], err
}

// hold opens a file of a process, unless it is open.
func (s *linux) hold(d *descriptor, path string, flags int) error {
	switch {
	case d.isOpen():
		return nil
	case *d == denied:
		return unix.EACCES
	}
	fd, err := unix.Openat(s.proc.fd(), path, flags|unix.O_CLOEXEC, 0)
	if errors.Is(err, unix.EACCES) {
		*d = denied
	}
	if err != nil {
		return err
	}
	*d = descriptor(fd + 1)
	s.held++
	return nil
}

// spare closes a file of a process that gave an error, or for which there is no
// room. One that may be opened and not be read stays, as does io of a process of
// another user: to ask again costs less than to open it again.
func (s *linux) spare(d *descriptor, err error) {
	if err != nil && !errors.Is(err, unix.EACCES) || s.held > s.maxHeld {
		s.release(d)
	}
}

func (s *linux) release(d *descriptor) {
	if d.isOpen() {
		s.held--
	}
	s.drop(d)
}

// drop closes d. The file was only read, so close(2) has nothing to tell.
func (s *linux) drop(d *descriptor) {
	if d.isOpen() {
		_ = unix.Close(d.fd())
	}
	*d = 0
}

func (s *linux) unlist(p *process) {
	s.release(&p.held.statm)
	s.release(&p.held.io)
	s.release(&p.held.fd)
}

func (s *linux) forget(p *process) {
	s.unlist(p)
	s.release(&p.held.stat)
	if p.held.turns != nil {
		s.release(&p.held.turns.file)
		p.held.turns = nil
	}
}

func (s *linux) close() {
	s.drop(&s.proc)
	s.loadavg.Close()
	s.online.Close()
}
