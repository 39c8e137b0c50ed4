package proc

import (
	"errors"
	"fmt"
	"syscall"
	"unsafe"

	"golang.org/x/sys/windows"
)

// held is what is kept of a process.
type held struct {
	identified bool  // user and command line were asked for
	refused    error // why there was no answer
}

// The offsets of ntprocess.go are those of the system's declarations: each of
// these lines indexes an array of one with their difference, and compiles only
// if that is 0.
type ntp = windows.SYSTEM_PROCESS_INFORMATION

var (
	_ = [1]int{}[unsafe.Offsetof(ntp{}.NumberOfThreads)-ntThreads]
	_ = [1]int{}[unsafe.Offsetof(ntp{}.WorkingSetPrivateSize)-ntPrivate]
	_ = [1]int{}[unsafe.Offsetof(ntp{}.CreateTime)-ntCreated]
	_ = [1]int{}[unsafe.Offsetof(ntp{}.UserTime)-ntUserTime]
	_ = [1]int{}[unsafe.Offsetof(ntp{}.KernelTime)-ntKernelTime]
	_ = [1]int{}[unsafe.Offsetof(ntp{}.ImageName)-ntName]
	_ = [1]int{}[unsafe.Offsetof(ntp{}.UniqueProcessID)-ntPID]
	_ = [1]int{}[unsafe.Offsetof(ntp{}.InheritedFromUniqueProcessID)-ntParent]
	_ = [1]int{}[unsafe.Offsetof(ntp{}.HandleCount)-ntHandles]
	_ = [1]int{}[unsafe.Offsetof(ntp{}.VirtualSize)-ntVirtual]
	_ = [1]int{}[unsafe.Offsetof(ntp{}.WorkingSetSize)-ntWorkingSet]
	_ = [1]int{}[unsafe.Offsetof(ntp{}.PrivatePageCount)-ntPrivatePages]
	_ = [1]int{}[unsafe.Offsetof(ntp{}.ReadTransferCount)-ntRead]
	_ = [1]int{}[unsafe.Offsetof(ntp{}.WriteTransferCount)-ntWritten]
	_ = [1]int{}[unsafe.Sizeof(ntp{})-ntProcessSize]
)

// nt reads the processes of a Windows machine.
type nt struct {
	cfg   Config
	ask   func(class int32, into unsafe.Pointer, size uint32, n *uint32) error // NtQuerySystemInformation
	open  func(*process) (windows.Handle, error)
	buf   []byte
	n     uint32 // how much of buf an answer needs
	text  []byte
	path  []uint16
	users map[string]string // names by SID, since a name may have to come from a domain controller
}

func newSystem(cfg Config) system {
	return &nt{cfg: cfg, ask: windows.NtQuerySystemInformation, open: openProcess, buf: make([]byte, 256<<10), text: make([]byte, 4<<10), path: make([]uint16, windows.MAX_PATH), users: make(map[string]string)}
}

// scan asks for all processes at once.
func (s *nt) scan(t *table) error {
	n, err := s.query()
	if err != nil {
		return fmt.Errorf("query system process information: %w", err)
	}
	// The address is compared with pointers in buf and never turned back into
	// one; buf is on the heap and does not move.
	base := uint64(uintptr(unsafe.Pointer(unsafe.SliceData(s.buf))))
	if err := ntScan(s.buf[:n], base, t); err != nil {
		return fmt.Errorf("parse system process information: %w", err)
	}
	return nil
}

// query fills s.buf, growing it until it is large enough, and returns the length.
func (s *nt) query() (int, error) {
	const most = 256 << 20
	for {
		// unsafe.Pointer rule 4: the pointer is converted in the call; it points
		// to len(s.buf) bytes, which s.buf keeps alive.
		err := s.ask(windows.SystemProcessInformation, unsafe.Pointer(unsafe.SliceData(s.buf)), uint32(len(s.buf)), &s.n)
		if err == nil {
			return min(int(s.n), len(s.buf)), nil
		}
		if !errors.Is(err, windows.STATUS_INFO_LENGTH_MISMATCH) || len(s.buf) >= most {
			return 0, err
		}
		// New processes may start before the next call: leave room for them.
		s.buf = make([]byte, max(int(s.n)+int(s.n)/4, 2*len(s.buf)))
	}
}

// details asks where a process comes from when it is listed for the first time,
// and, as far as that is wanted, who runs it and how it was called. None of these
// changes while it lives.
func (s *nt) details(listed []*process, _ *table, errs []string) []string {
	refused := tally{field: "executable"}
	if s.cfg.Users {
		refused.field += ", user"
	}
	if s.cfg.CommandLines {
		refused.field += ", command_line"
	}
	for _, p := range listed {
		if !p.held.identified && p.pid != systemPID {
			p.held.identified = true
			p.held.refused = s.identify(p)
		}
		refused.note(p.held.refused)
	}
	return refused.report(errs)
}

// systemPID is the process of the kernel, which is no program.
const systemPID = 4

func (s *nt) identify(p *process) error {
	h, err := s.open(p)
	if err != nil {
		return err
	}
	var userErr, commandErr error
	executable, pathErr := s.executable(h)
	p.executable = executable
	if s.cfg.Users {
		p.user, userErr = s.user(h)
	}
	if s.cfg.CommandLines {
		p.command, commandErr = s.commandLine(h)
	}
	return errors.Join(pathErr, userErr, commandErr, windows.CloseHandle(h))
}

// executable returns the path of a process's program as Windows writes it, with
// the letter of its drive (QueryFullProcessImageName).
func (s *nt) executable(h windows.Handle) (string, error) {
	const most = 32 << 10 // the longest path
	for {
		n := uint32(len(s.path))
		err := windows.QueryFullProcessImageName(h, 0, unsafe.SliceData(s.path), &n)
		if err == nil {
			return windows.UTF16ToString(s.path[:n]), nil
		}
		if !errors.Is(err, windows.ERROR_INSUFFICIENT_BUFFER) || len(s.path) >= most {
			return "", err
		}
		s.path = make([]uint16, most)
	}
}

// openProcess opens p, or returns ESRCH where its pid is another's by now.
func openProcess(p *process) (windows.Handle, error) {
	h, err := windows.OpenProcess(windows.PROCESS_QUERY_LIMITED_INFORMATION, false, p.pid)
	if errors.Is(err, windows.ERROR_INVALID_PARAMETER) { // what OpenProcess says of a pid that nobody has
		return 0, syscall.ESRCH
	}
	if err != nil {
		return 0, err
	}
	var created, exited, kernel, user windows.Filetime
	err = windows.GetProcessTimes(h, &created, &exited, &kernel, &user)
	if err == nil && uint64(created.HighDateTime)<<32|uint64(created.LowDateTime) != p.start {
		err = syscall.ESRCH
	}
	if err != nil {
		return 0, errors.Join(err, windows.CloseHandle(h))
	}
	return h, nil
}

func (s *nt) user(h windows.Handle) (string, error) {
	var token windows.Token
	if err := windows.OpenProcessToken(h, windows.TOKEN_QUERY, &token); err != nil {
		return "", err
	}
	user, err := token.GetTokenUser()
	if err := errors.Join(err, token.Close()); err != nil {
		return "", err
	}
	return s.account(user.User.Sid), nil
}

// account returns DOMAIN\name, or the SID itself where no name is to be had. It
// does not ask twice: with a domain controller out of reach that takes seconds.
func (s *nt) account(sid *windows.SID) string {
	const most = 1024
	id := sid.String()
	if name, ok := s.users[id]; ok {
		return name
	}
	name, domain, _, err := sid.LookupAccount("")
	switch {
	case err != nil:
		name = id
	case domain != "":
		name = domain + `\` + name
	}
	if len(s.users) >= most {
		clear(s.users)
	}
	s.users[id] = name
	return name
}

// commandLine reads at most 64 KiB, the longest that a UNICODE_STRING can be.
func (s *nt) commandLine(h windows.Handle) (string, error) {
	for {
		var n uint32
		// unsafe.Pointer rule 4: converted in the call; len(s.text) bytes, kept
		// alive by s.text.
		err := windows.NtQueryInformationProcess(h, windows.ProcessCommandLineInformation,
			unsafe.Pointer(unsafe.SliceData(s.text)), uint32(len(s.text)), &n)
		if err == nil {
			// As in scan: an address to compare with, of memory that does not move.
			base := uint64(uintptr(unsafe.Pointer(unsafe.SliceData(s.text))))
			return utf16String(unicodeString(s.text[:min(int(n), len(s.text))], 0, base)), nil
		}
		if int(n) <= len(s.text) || n > 1<<17 {
			return "", err
		}
		s.text = make([]byte, n)
	}
}

// cpus counts the processors on line in all processor groups.
func (s *nt) cpus() (int, error) {
	n := windows.GetActiveProcessorCount(windows.ALL_PROCESSOR_GROUPS)
	if n == 0 {
		return 0, errors.New("GetActiveProcessorCount says none")
	}
	return int(n), nil
}

func (s *nt) states() []state { return windowsStates }
func (s *nt) forget(*process) {}
func (s *nt) close()          {}
