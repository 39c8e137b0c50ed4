package cpu

import (
	"errors"
	"fmt"
	"syscall"
	"unsafe"

	"github.com/rea-agent/rea/internal/collect"
	"github.com/rea-agent/rea/internal/event"
	"golang.org/x/sys/windows"
)

// Classes and levels that x/sys does not name.
const (
	relationProcessorCore = 0  // LOGICAL_PROCESSOR_RELATIONSHIP
	processorInformation  = 11 // POWER_INFORMATION_LEVEL
)

// A source is the set of calls that tell of the processors.
type source struct {
	queryEx, groups, topology, power, times *windows.LazyProc

	buf      []byte
	cores    int // for which physical stands
	physical event.Maybe[int64]
}

func newSource() *source {
	kernel := windows.NewLazySystemDLL("kernel32.dll")
	return &source{
		queryEx:  windows.NewLazySystemDLL("ntdll.dll").NewProc("NtQuerySystemInformationEx"),
		groups:   kernel.NewProc("GetActiveProcessorGroupCount"),
		topology: kernel.NewProc("GetLogicalProcessorInformationEx"),
		times:    kernel.NewProc("GetSystemTimes"),
		power:    windows.NewLazySystemDLL("powrprof.dll").NewProc("CallNtPowerInformation"),
		buf:      make([]byte, 64*processorSize),
	}
}

func (s *source) read(r *Reading) error {
	groups := s.groupCount()
	if n := windows.GetActiveProcessorCount(windows.ALL_PROCESSOR_GROUPS); n > 0 {
		r.Logical = event.Known(int64(n))
	}
	if err := s.readCores(groups, r); err != nil {
		r.fail("cores", err)
		r.Cores, r.Interrupts = r.Cores[:0], collect.Counter{}
		if r.All.Time, err = s.systemTimes(); err != nil {
			return err
		}
	}
	sumCores(r)
	s.readSwitches(r)
	if len(r.Cores) == 0 {
		return nil
	}
	if s.cores != len(r.Cores) {
		s.cores = len(r.Cores)
		var err error
		if s.physical, err = s.countPhysical(); err != nil {
			s.cores = 0
			r.fail("physical_count", err)
		}
	}
	r.Physical = s.physical
	if groups == 1 { // the call tells of one group only
		s.readFrequencies(r)
	}
	return nil
}

func (s *source) groupCount() uint16 {
	if s.groups.Find() != nil {
		return 1
	}
	n, _, _ := syscall.SyscallN(s.groups.Addr())
	return max(1, uint16(n))
}

// readCores reads the times of each core. The plain call tells of the group in
// which this thread happens to run, so it will do only where there is just one.
func (s *source) readCores(groups uint16, r *Reading) error {
	if groups == 1 {
		b, err := s.query(windows.SystemProcessorPerformanceInformation)
		if err != nil {
			return fmt.Errorf("query processor times: %w", err)
		}
		return parseProcessors(b, event.Maybe[int64]{}, r)
	}
	for g := range groups {
		b, err := s.queryGroup(g)
		if err != nil {
			return fmt.Errorf("query processor times of group %d: %w", g, err)
		}
		if err := parseProcessors(b, event.Known(int64(g)), r); err != nil {
			return err
		}
	}
	return nil
}

func (s *source) readSwitches(r *Reading) {
	b, err := s.query(windows.SystemPerformanceInformation)
	if err == nil {
		r.Switches.Total, err = parsePerformance(b)
	}
	if err != nil {
		r.fail("context_switches", err)
	}
}

// query asks for a class of system information, into the one buffer of s.
func (s *source) query(class int32) ([]byte, error) {
	for {
		var n uint32
		// unsafe.Pointer to the buffer lives for the call; its length goes with it.
		err := windows.NtQuerySystemInformation(class, unsafe.Pointer(&s.buf[0]), uint32(len(s.buf)), &n)
		if again := s.grow(err); again {
			continue
		}
		if err != nil {
			return nil, err
		}
		return s.buf[:min(int(n), len(s.buf))], nil
	}
}

func (s *source) queryGroup(group uint16) ([]byte, error) {
	if err := s.queryEx.Find(); err != nil {
		return nil, err
	}
	for {
		var n uint32
		// Rule 4 of unsafe.Pointer: the conversions stand in the call itself.
		status, _, _ := syscall.SyscallN(s.queryEx.Addr(), windows.SystemProcessorPerformanceInformation,
			uintptr(unsafe.Pointer(&group)), unsafe.Sizeof(group),
			uintptr(unsafe.Pointer(&s.buf[0])), uintptr(len(s.buf)), uintptr(unsafe.Pointer(&n)))
		err := error(windows.NTStatus(status))
		if again := s.grow(err); again {
			continue
		}
		if status != 0 {
			return nil, err
		}
		return s.buf[:min(int(n), len(s.buf))], nil
	}
}

// grow makes the buffer larger if err says that it was too small, up to what
// the largest machine that Windows runs on needs many times over.
func (s *source) grow(err error) bool {
	if !errors.Is(err, windows.STATUS_INFO_LENGTH_MISMATCH) && !errors.Is(err, windows.ERROR_INSUFFICIENT_BUFFER) || len(s.buf) >= 1<<20 {
		return false
	}
	s.buf = make([]byte, 2*len(s.buf))
	return true
}

func (s *source) systemTimes() (Times, error) {
	if err := s.times.Find(); err != nil {
		return Times{}, err
	}
	var idling, kernel, inUser windows.Filetime
	// Rule 4 of unsafe.Pointer: the conversions stand in the call itself.
	ok, _, errno := syscall.SyscallN(s.times.Addr(), uintptr(unsafe.Pointer(&idling)),
		uintptr(unsafe.Pointer(&kernel)), uintptr(unsafe.Pointer(&inUser)))
	if ok == 0 {
		return Times{}, fmt.Errorf("get system times: %w", errno)
	}
	return systemTimes(units(idling), units(kernel), units(inUser)), nil
}

func units(t windows.Filetime) uint64 {
	return uint64(t.HighDateTime)<<32 | uint64(t.LowDateTime)
}

func (s *source) countPhysical() (event.Maybe[int64], error) {
	if err := s.topology.Find(); err != nil {
		return event.Maybe[int64]{}, err
	}
	for {
		n := uint32(len(s.buf))
		// Rule 4 of unsafe.Pointer: the conversions stand in the call itself.
		ok, _, errno := syscall.SyscallN(s.topology.Addr(), relationProcessorCore,
			uintptr(unsafe.Pointer(&s.buf[0])), uintptr(unsafe.Pointer(&n)))
		if ok != 0 {
			return countRecords(s.buf[:min(int(n), len(s.buf))])
		}
		if again := s.grow(errno); !again {
			return event.Maybe[int64]{}, fmt.Errorf("get logical processor information: %w", errno)
		}
	}
}

// readFrequencies adds what the power manager knows; where it knows nothing
// (many virtual machines), nothing is told.
func (s *source) readFrequencies(r *Reading) {
	size := len(r.Cores) * powerSize
	if s.power.Find() != nil || size > len(s.buf) {
		return
	}
	// Rule 4 of unsafe.Pointer: the conversion stands in the call itself.
	status, _, _ := syscall.SyscallN(s.power.Addr(), processorInformation, 0, 0,
		uintptr(unsafe.Pointer(&s.buf[0])), uintptr(size))
	if status == 0 {
		parsePower(s.buf[:size], r.Cores)
	}
}
