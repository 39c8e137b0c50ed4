package queue

import (
	"errors"
	"io"
	"io/fs"
	"maps"
	"math/rand/v2"
	"slices"
	"syscall"
)

// A simFolder is a folder in memory that loses what a real one may lose: at a
// power cut any sector that was not synced, any name that was not synced, in any
// combination; at a failed sync the same, without telling the cache. It fails
// calls on purpose, has a size, and dies at a chosen call.
type simFolder struct {
	rng      *rand.Rand
	names    map[string]*inode // what a process sees
	onDisk   map[string]*inode // what a power cut leaves, before unsynced
	unsynced []nameOp
	locked   bool

	capacity int64   // of the disk, in blocks
	bound    int64   // MaxBytes of the queue: exceeded is set when it is
	fault    float64 // share of writing calls that fail with EIO
	flaky    float64 // share of reads that fail, bearable times in a row at most
	deadIn   int     // calls until the machine stops; 0 is never
	dead     bool
	lie      lie
	exceeded int64
}

// A lie is what a folder does wrong on purpose, to see that the histories find
// it: they would find a queue that does it.
type lie string

const (
	noFileSync    lie = "files are not synced"
	noFolderSync  lie = "the folder is not synced"
	hiddenFailure lie = "a failed sync is ignored"
)

type nameOp struct {
	name string
	node *inode // nil removes
}

// An inode is a file: what a process reads, what is on the disk, and the writes
// in between.
type inode struct {
	cache, disk []byte
	unsynced    []write
	bad         map[int64]bool // pages that the disk does not give back until they are written
	failed      [3]int         // reads, openings to read and openings to write, in a row
}

type write struct {
	off  int64
	data []byte // nil truncates to off
}

var (
	errDead   = errors.New("the machine has stopped")
	writeErrs = []error{syscall.EIO, syscall.EIO, errReadOnly}
)

func newSimFolder(rng *rand.Rand) *simFolder {
	return &simFolder{rng: rng, names: map[string]*inode{}, onDisk: map[string]*inode{}, capacity: unbounded}
}

// unbounded is the capacity of a disk that nobody fills.
const unbounded = 1 << 40

// call counts a call and may fail it.
func (d *simFolder) call(writes bool) error {
	if d.dead {
		return errDead
	}
	if d.deadIn > 0 {
		if d.deadIn--; d.deadIn == 0 {
			d.dead = true
			return errDead
		}
	}
	if writes && d.fault > 0 && d.rng.Float64() < d.fault {
		return writeErrs[d.rng.IntN(len(writeErrs))]
	}
	return nil
}

// bearable is how often in a row a read may fail without costing anything.
const bearable = 2

// read counts a call that reads, and may fail it, but bearable times in a row at
// most; failed says how often it did.
func (d *simFolder) read(failed *int) error {
	if err := d.call(false); err != nil {
		return err
	}
	if d.flaky > 0 && *failed < bearable && d.rng.Float64() < d.flaky {
		*failed++
		return syscall.EIO
	}
	*failed = 0
	return nil
}

// kill ends the process: what it wrote stays in the cache.
func (d *simFolder) kill() { d.dead, d.deadIn, d.locked = false, 0, false }

// cutPower loses what was not synced, or a part of it.
func (d *simFolder) cutPower() {
	d.kill()
	for _, op := range d.unsynced {
		if d.rng.IntN(2) == 0 {
			set(d.onDisk, op)
		}
	}
	d.unsynced, d.names = nil, map[string]*inode{}
	for _, name := range slices.Sorted(maps.Keys(d.onDisk)) {
		n := d.onDisk[name]
		d.landSome(n)
		n.cache = slices.Clone(n.disk)
		d.names[name] = n
	}
}

func set(names map[string]*inode, op nameOp) {
	if op.node == nil {
		delete(names, op.name)
	} else {
		names[op.name] = op.node
	}
}

// haunted reports whether a file before that name, which was removed, may come back.
func (d *simFolder) haunted(before string) bool {
	for name := range d.onDisk {
		if name < before && d.names[name] == nil {
			return true
		}
	}
	return slices.ContainsFunc(d.unsynced, func(op nameOp) bool { return op.name < before && d.names[op.name] == nil })
}

const sector = 512

// landSome brings a random part of the unsynced writes to the disk, sector by
// sector, and forgets the rest. What a file grew by and did not get is zeros.
func (d *simFolder) landSome(n *inode) {
	keep := d.rng.Float64()
	for _, w := range n.unsynced {
		if w.data == nil {
			if d.rng.Float64() < keep {
				n.disk = resize(n.disk, w.off)
			}
			continue
		}
		for i := int64(0); i < int64(len(w.data)); {
			end := min((w.off+i)/sector*sector+sector-w.off, int64(len(w.data)))
			if d.rng.Float64() < keep {
				n.disk = put(n.disk, w.data[i:end], w.off+i)
			}
			i = end
		}
	}
	n.unsynced = nil
}

func put(b, data []byte, off int64) []byte {
	if end := off + int64(len(data)); end > int64(len(b)) {
		b = resize(b, end)
	}
	copy(b[off:], data)
	return b
}

func resize(b []byte, size int64) []byte {
	if size <= int64(len(b)) {
		return b[:size:size]
	}
	return append(b, make([]byte, size-int64(len(b)))...)
}

func (d *simFolder) used() (n int64) {
	for _, f := range d.names {
		n += blocks(int64(len(f.cache)))
	}
	return n
}

type simLock struct{ d *simFolder }

func (l simLock) Close() error { l.d.locked = false; return nil }

func (d *simFolder) Lock() (io.Closer, error) {
	if d.locked {
		return nil, errors.New("locked twice")
	}
	d.locked = true
	return simLock{d}, nil
}

func (d *simFolder) List() (entries []entry, err error) {
	for _, name := range slices.Sorted(maps.Keys(d.names)) {
		n := d.names[name]
		entries = append(entries, entry{name: name, size: int64(len(n.cache))})
	}
	return entries, d.call(false)
}

func (d *simFolder) Create(name string) (file, error) {
	if err := d.call(true); err != nil {
		return nil, err
	}
	if d.names[name] != nil {
		return nil, fs.ErrExist
	}
	op := nameOp{name, &inode{}}
	set(d.names, op)
	d.unsynced = append(d.unsynced, op)
	return &simFile{d, op.node}, nil
}

func (d *simFolder) Open(name string, write bool) (file, error) {
	n := d.names[name]
	if n == nil {
		return nil, errors.Join(d.call(false), fs.ErrNotExist)
	}
	failed := &n.failed[1]
	if write {
		failed = &n.failed[2]
	}
	if err := d.read(failed); err != nil {
		return nil, err
	}
	return &simFile{d, n}, nil
}

func (d *simFolder) Remove(name string) error {
	if err := d.call(true); err != nil {
		return err
	}
	op := nameOp{name: name}
	set(d.names, op)
	d.unsynced = append(d.unsynced, op)
	return nil
}

func (d *simFolder) Sync() error {
	if err := d.call(true); err != nil || d.lie == noFolderSync {
		return err
	}
	for _, op := range d.unsynced {
		set(d.onDisk, op)
	}
	d.unsynced = nil
	return nil
}

func (d *simFolder) Free() (int64, error) { return d.capacity - d.used(), d.call(false) }

type simFile struct {
	d *simFolder
	n *inode
}

func (f *simFile) Close() error         { return nil }
func (f *simFile) Size() (int64, error) { return int64(len(f.n.cache)), nil }

func (f *simFile) ReadAt(b []byte, off int64) (int, error) {
	if err := f.d.read(&f.n.failed[0]); err != nil {
		return 0, err
	}
	for p := range f.n.bad {
		if off < (p+1)*page && off+int64(len(b)) > p*page {
			return 0, syscall.EIO
		}
	}
	n := 0
	if off < int64(len(f.n.cache)) {
		n = copy(b, f.n.cache[off:])
	}
	if n < len(b) {
		return n, io.EOF
	}
	return n, nil
}

// WriteAt writes a part before it fails or the machine stops.
func (f *simFile) WriteAt(b []byte, off int64) (int, error) {
	before := f.d.dead
	err := f.d.call(true)
	n := len(b)
	if before {
		n = 0
	} else if err != nil {
		n = f.d.rng.IntN(n + 1)
	} else if f.d.capacity < unbounded {
		if room := f.d.capacity - f.d.used() + blocks(int64(len(f.n.cache))); off+int64(n) > room {
			n, err = max(0, int(room-off)), errFull
		}
	}
	size := len(f.n.cache)
	if n > 0 {
		f.n.cache = put(f.n.cache, b[:n], off)
		f.n.unsynced = append(f.n.unsynced, write{off, slices.Clone(b[:n])})
		for p := range f.n.bad {
			if off < (p+1)*page && off+int64(n) > p*page {
				delete(f.n.bad, p)
			}
		}
	}
	if len(f.n.cache) > size {
		f.d.exceeded = max(f.d.exceeded, f.d.used()-f.d.bound)
	}
	return n, err
}

func (f *simFile) Truncate(size int64) error {
	if err := f.d.call(true); err != nil {
		return err
	}
	f.n.cache = slices.Clone(resize(f.n.cache, size))
	f.n.unsynced = append(f.n.unsynced, write{off: size})
	return nil
}

// Sync brings everything to the disk or, when it fails, something. Then the
// cache still shows it all, and the next sync will not know.
func (f *simFile) Sync() error {
	if err := f.d.call(true); err != nil {
		if err != errDead {
			f.d.landSome(f.n)
		}
		if f.d.lie == hiddenFailure && err != errDead {
			return nil
		}
		return err
	}
	if f.d.lie == noFileSync {
		return nil
	}
	for _, w := range f.n.unsynced {
		if w.data == nil {
			f.n.disk = resize(f.n.disk, w.off)
		} else {
			f.n.disk = put(f.n.disk, w.data, w.off)
		}
	}
	f.n.unsynced = nil
	return nil
}
