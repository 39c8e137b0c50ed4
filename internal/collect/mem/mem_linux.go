package mem

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// A source is the part of /proc that tells of memory.
type source struct {
	meminfo, vmstat, memory, io file
	pageSize                    uint64
	noPressure                  bool // the kernel has none, for as long as it runs
}

func newSource() *source { return sourceAt("/proc", uint64(os.Getpagesize())) }

func sourceAt(root string, pageSize uint64) *source {
	at := func(path string) file { return file{path: filepath.Join(root, path)} }
	return &source{meminfo: at("meminfo"), vmstat: at("vmstat"), memory: at("pressure/memory"), io: at("pressure/io"), pageSize: pageSize}
}

func (s *source) read(r *Reading) error {
	b, err := s.meminfo.read()
	if err != nil {
		return err
	}
	if err := parseMeminfo(b, r); err != nil {
		return err
	}
	if b, err = s.vmstat.read(); err == nil {
		err = parseVmstat(b, s.pageSize, r)
	}
	if err != nil {
		r.fail("page_faults", err)
	}
	s.readPressure(r, "pressure", &s.memory, &r.Pressure)
	s.readPressure(r, "disk_pressure", &s.io, &r.DiskPressure)
	return nil
}

// readPressure leaves pressure out where the kernel was built (ENOENT) or
// booted (EOPNOTSUPP) without it, which is no error.
func (s *source) readPressure(r *Reading, field string, from *file, to *Pressure) {
	if s.noPressure {
		return
	}
	b, err := from.read()
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.EOPNOTSUPP) {
		s.noPressure = true
		return
	}
	if err == nil {
		*to, err = parsePressure(b)
	}
	if err != nil {
		r.fail(field, err)
	}
}
