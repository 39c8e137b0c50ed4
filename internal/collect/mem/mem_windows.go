package mem

import (
	"errors"
	"fmt"
	"syscall"
	"unsafe"

	"github.com/rea-agent/rea/internal/event"
	"golang.org/x/sys/windows"
)

// memoryStatusEx is MEMORYSTATUSEX (sysinfoapi.h).
type memoryStatusEx struct {
	length, load                                       uint32
	totalPhys, availPhys, totalPageFile, availPageFile uint64
	totalVirtual, availVirtual, availExtendedVirtual   uint64
}

// performanceInformation is PERFORMANCE_INFORMATION (psapi.h).
type performanceInformation struct {
	size                                                  uint32
	commitTotal, commitLimit, commitPeak                  uintptr
	physicalTotal, physicalAvailable                      uintptr
	systemCache, kernelTotal, kernelPaged, kernelNonpaged uintptr
	pageSize                                              uintptr
	handles, processes, threads                           uint32
}

// A source is the set of calls that tell of memory.
type source struct {
	status, performance *windows.LazyProc
	buf                 []byte
}

func newSource() *source {
	kernel := windows.NewLazySystemDLL("kernel32.dll")
	return &source{
		status:      kernel.NewProc("GlobalMemoryStatusEx"),
		performance: kernel.NewProc("K32GetPerformanceInfo"), // GetPerformanceInfo since Windows 7
		buf:         make([]byte, 4096),
	}
}

func (s *source) read(r *Reading) error {
	if err := s.readStatus(r); err != nil {
		return err
	}
	p, err := s.performanceInfo()
	if err != nil {
		r.fail("committed_bytes", err)
	} else {
		p.fill(r)
		s.readPagefiles(r, p.pageSize)
	}
	b, err := s.query(windows.SystemPerformanceInformation)
	if err == nil {
		r.PageFaults.Total, err = parsePageFaults(b)
	}
	if err != nil {
		r.fail("page_faults", err)
	}
	return nil
}

func (s *source) readPagefiles(r *Reading, pageSize uint64) {
	b, err := s.query(windows.SystemPageFileInformation)
	if err == nil {
		r.SwapTotal, r.SwapFree, err = parsePagefiles(b, pageSize)
	}
	if err != nil {
		r.fail("swap_total_bytes", err)
	}
}

func (s *source) readStatus(r *Reading) error {
	m := memoryStatusEx{}
	m.length = uint32(unsafe.Sizeof(m))
	// Rule 4 of unsafe.Pointer: the conversion stands in the call itself.
	if ok, _, errno := syscall.SyscallN(s.status.Addr(), uintptr(unsafe.Pointer(&m))); ok == 0 {
		return fmt.Errorf("get memory status: %w", errno)
	}
	r.Total, r.Available = event.Known(m.totalPhys), event.Known(m.availPhys)
	return nil
}

func (s *source) performanceInfo() (performance, error) {
	p := performanceInformation{}
	p.size = uint32(unsafe.Sizeof(p))
	// Rule 4 of unsafe.Pointer: the conversion stands in the call itself.
	if ok, _, errno := syscall.SyscallN(s.performance.Addr(), uintptr(unsafe.Pointer(&p)), uintptr(p.size)); ok == 0 {
		return performance{}, fmt.Errorf("get performance info: %w", errno)
	}
	return performance{
		commitTotal: uint64(p.commitTotal), commitLimit: uint64(p.commitLimit), systemCache: uint64(p.systemCache),
		kernelPaged: uint64(p.kernelPaged), kernelNonpaged: uint64(p.kernelNonpaged), pageSize: uint64(p.pageSize),
	}, nil
}

// query asks for a class of system information, into the one buffer of s, which
// grows up to what no list of page files fills.
func (s *source) query(class int32) ([]byte, error) {
	for {
		var n uint32
		// unsafe.Pointer to the buffer lives for the call; its length goes with it.
		err := windows.NtQuerySystemInformation(class, unsafe.Pointer(&s.buf[0]), uint32(len(s.buf)), &n)
		if err == nil {
			return s.buf[:min(int(n), len(s.buf))], nil
		}
		if !errors.Is(err, windows.STATUS_INFO_LENGTH_MISMATCH) || len(s.buf) >= 1<<16 {
			return nil, fmt.Errorf("query system information %d: %w", class, err)
		}
		s.buf = make([]byte, 2*len(s.buf))
	}
}
