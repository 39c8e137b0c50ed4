package cpu

import (
	"bufio"
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"time"

	"github.com/rea-agent/rea/internal/event"
	"github.com/rea-agent/rea/internal/procfs"
)

// Frequencies are asked for once a minute and of four cores a reading: some
// kernels (4.13 to 5.17 on x86) sleep for 10 ms over each of them.
const (
	frequencyEvery = time.Minute
	frequencyCores = 4
)

// A source is the part of /proc and /sys that tells of the processors.
type source struct {
	root          string
	stat, loadavg procfs.File
	pressure      procfs.PressureFile
	buf           []byte // what is being read; parsed before the next

	numbers  []int64 // the cores for which the rest stands
	physical event.Maybe[int64]
	hertz    []event.Maybe[float64] // as last read, for each core
	fromInfo bool                   // cpufreq knows no frequency; cpuinfo may
	asked    time.Time              // when the present round of asking began
	next     int                    // core to ask next; len(numbers) when the round is over
}

func newSource() *source { return sourceAt("/") }

func sourceAt(root string) *source {
	at := func(path string) procfs.File { return procfs.File{Path: filepath.Join(root, path)} }
	return &source{
		root: root, stat: at("proc/stat"), loadavg: at("proc/loadavg"),
		pressure: procfs.PressureFile{File: at("proc/pressure/cpu")},
	}
}

func (s *source) read(r *Reading) error {
	b, err := s.stat.Read(&s.buf)
	if err != nil {
		return err
	}
	if err := parseStat(b, r); err != nil {
		return err
	}
	s.readLoad(r)
	s.readPressure(r)
	s.readCores(r)
	return nil
}

func (s *source) readLoad(r *Reading) {
	b, err := s.loadavg.Read(&s.buf)
	if err == nil {
		r.Load.V, err = parseLoad(b)
	}
	if r.Load.Known = err == nil; err != nil {
		r.fail("load_average", err)
	}
}

func (s *source) readPressure(r *Reading) {
	p, ok, err := s.pressure.Read(&s.buf)
	r.Pressure = event.Maybe[Pressure]{V: Pressure{Stall: p.Some}, Known: ok}
	if err != nil {
		r.fail("pressure", err)
	}
}

// readCores adds what does not stand in /proc/stat: the number of physical
// cores, counted again when cores came or went, and frequencies.
func (s *source) readCores(r *Reading) {
	if len(r.Cores) == 0 {
		return
	}
	r.Logical = event.Known(int64(len(r.Cores)))
	same := slices.EqualFunc(s.numbers, r.Cores, func(n int64, c Core) bool { return n == c.Number })
	if !same {
		s.numbers = s.numbers[:0]
		for i := range r.Cores {
			s.numbers = append(s.numbers, r.Cores[i].Number)
		}
		s.hertz = make([]event.Maybe[float64], len(s.numbers))
		s.physical = s.countPhysical()
		s.asked, s.next, s.fromInfo = time.Time{}, 0, false
	}
	s.askFrequencies()
	r.Physical = s.physical
	for i := range r.Cores {
		r.Cores[i].Frequency = s.hertz[i]
	}
}

// countPhysical counts each physical core at the first of its threads.
func (s *source) countPhysical() event.Maybe[int64] {
	var n int64
	for _, c := range s.numbers {
		b, err := os.ReadFile(s.core(c, "topology/thread_siblings_list"))
		f, ok := first(b)
		if err != nil || !ok {
			return countPhysical(s.readInfo())
		}
		if f == c {
			n++
		}
	}
	return event.Maybe[int64]{V: n, Known: n > 0}
}

func (s *source) askFrequencies() {
	if now := time.Now(); s.asked.IsZero() || s.next >= len(s.numbers) && now.Sub(s.asked) >= frequencyEvery {
		s.asked, s.next = now, 0
	}
	for range frequencyCores {
		if s.next >= len(s.numbers) {
			return
		}
		if s.fromInfo {
			s.takeInfo()
			s.next = len(s.numbers)
			return
		}
		b, err := os.ReadFile(s.core(s.numbers[s.next], "cpufreq/scaling_cur_freq"))
		khz, bad := strconv.ParseUint(string(bytes.TrimSpace(b)), 10, 63)
		s.hertz[s.next] = event.Maybe[float64]{V: float64(khz) * 1e3, Known: err == nil && bad == nil && khz > 0}
		if err != nil && s.next == 0 {
			s.fromInfo = true
			continue
		}
		s.next++
	}
}

func (s *source) takeInfo() {
	for _, c := range s.readInfo() {
		if i, ok := slices.BinarySearch(s.numbers, c.number); ok {
			s.hertz[i] = c.frequency
		}
	}
}

// readInfo reads /proc/cpuinfo, which is long and slow on a large machine, a
// piece at a time. What cannot be read is not known.
func (s *source) readInfo() (cores []cpuinfo) {
	f, err := os.Open(filepath.Join(s.root, "proc/cpuinfo"))
	if err != nil {
		return nil
	}
	defer f.Close()
	in := bufio.NewReader(f)
	for {
		line, err := in.ReadSlice('\n')
		cores = parseCPUInfo(line, cores)
		for errors.Is(err, bufio.ErrBufferFull) { // the flags are long, and not wanted
			_, err = in.ReadSlice('\n')
		}
		if err != nil {
			return cores
		}
	}
}

func (s *source) core(n int64, file string) string {
	return filepath.Join(s.root, "sys/devices/system/cpu/cpu"+strconv.FormatInt(n, 10), file)
}
