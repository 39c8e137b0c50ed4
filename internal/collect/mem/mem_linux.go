package mem

import (
	"os"
	"path/filepath"

	"github.com/rea-agent/rea/internal/event"
	"github.com/rea-agent/rea/internal/procfs"
)

// A source is the part of /proc that tells of memory.
type source struct {
	meminfo, vmstat procfs.File
	memory, io      procfs.PressureFile
	pageSize        uint64
	buf             []byte // what is being read; parsed before the next
}

func newSource() *source { return sourceAt("/proc", uint64(os.Getpagesize())) }

func sourceAt(root string, pageSize uint64) *source {
	at := func(path string) procfs.File { return procfs.File{Path: filepath.Join(root, path)} }
	return &source{
		meminfo: at("meminfo"), vmstat: at("vmstat"), pageSize: pageSize,
		memory: procfs.PressureFile{File: at("pressure/memory")},
		io:     procfs.PressureFile{File: at("pressure/io")},
	}
}

func (s *source) read(r *Reading) error {
	b, err := s.meminfo.Read(&s.buf)
	if err != nil {
		return err
	}
	if err := parseMeminfo(b, r); err != nil {
		return err
	}
	if b, err = s.vmstat.Read(&s.buf); err == nil {
		err = parseVmstat(b, s.pageSize, r)
	}
	if err != nil {
		r.fail("page_faults", err)
	}
	s.readPressure(r, "pressure", &s.memory, &r.Pressure)
	s.readPressure(r, "disk_pressure", &s.io, &r.DiskPressure)
	return nil
}

func (s *source) readPressure(r *Reading, field string, from *procfs.PressureFile, to *Pressure) {
	p, ok, err := from.Read(&s.buf)
	to.Some = event.Maybe[Stall]{V: Stall{Stall: p.Some}, Known: ok}
	to.Full = event.Maybe[Stall]{V: Stall{Stall: p.Full}, Known: p.HasFull}
	if err != nil {
		r.fail(field, err)
	}
}
