package confine

import (
	"errors"
	"fmt"
	"io/fs"
	"os"

	"github.com/landlock-lsm/go-landlock/landlock"
	ll "github.com/landlock-lsm/go-landlock/landlock/syscall"
)

// The rights that rules give. Those to execute, to make devices, sockets, pipes
// and links, to move between folders, and to ioctl of a device nobody has.
const (
	readFile  landlock.AccessFSSet = ll.AccessFSReadFile
	readBelow landlock.AccessFSSet = ll.AccessFSReadFile | ll.AccessFSReadDir
	write     landlock.AccessFSSet = readBelow | ll.AccessFSWriteFile | ll.AccessFSTruncate |
		ll.AccessFSMakeReg | ll.AccessFSMakeDir | ll.AccessFSRemoveFile | ll.AccessFSRemoveDir
)

// restricted is all that is refused where no rule gives it: rights to files up
// to ABI 5, TCP, and connecting to abstract sockets of others (ABI 6).
//
// Signals are not: before Linux 6.15 one thread could not send one to another
// that was confined by itself, and the Go runtime does that all the time. Sockets
// in the file system (ABI 9) and UDP (ABI 10) are not, since a service manager is
// told and names are looked up by them.
var restricted = landlock.MustConfig(
	landlock.V5.HandledAccessFS,
	landlock.V4.HandledAccessNet,
	landlock.ScopedSet(ll.ScopeAbstractUnixSocket),
)

// ABI returns the version of Landlock that the kernel has; 0 for none.
func ABI() int {
	v, err := ll.LandlockGetABIVersion()
	if err != nil {
		return 0
	}
	return v
}

// Apply confines the process to the rules, as far as the kernel can; on one that
// has no Landlock it does nothing. With require it confines files and TCP, or
// returns ErrKernel. After an error nothing is restricted.
func (r Rules) Apply(require bool) (State, error) {
	s := State{ABI: ABI()}
	if err := enough(s.ABI); require && err != nil {
		return s, err
	}
	if s.ABI == 0 {
		return s, nil
	}
	rules, err := r.rules()
	if err != nil {
		return s, err
	}
	if err := restricted.BestEffort().Restrict(rules...); err != nil {
		return s, fmt.Errorf("confine by Landlock: %w", err)
	}
	s.File, s.TCP = true, s.ABI >= RequiredABI
	return s, nil
}

// enough returns ErrKernel where that version does not restrict files and TCP.
func enough(abi int) error {
	switch {
	case abi == 0:
		return fmt.Errorf("%w: it has no Landlock, or it was not enabled at boot (lsm=landlock,…)", ErrKernel)
	case abi < RequiredABI:
		return fmt.Errorf("%w: it has Landlock ABI %d, files and TCP take ABI %d (Linux 6.7)", ErrKernel, abi, RequiredABI)
	}
	return nil
}

// rules are the rules in the words of Landlock. A right on a folder that only a
// folder can have may not be given to a file.
func (r Rules) rules() ([]landlock.Rule, error) {
	var rules []landlock.Rule
	for _, path := range r.Read {
		info, err := os.Stat(path)
		switch {
		case errors.Is(err, fs.ErrNotExist), errors.Is(err, fs.ErrPermission):
			continue // what cannot be had now is not given
		case err != nil:
			return nil, fmt.Errorf("confine: %w", err)
		case info.IsDir():
			rules = append(rules, landlock.PathAccess(readBelow, path).IgnoreIfMissing())
		default:
			rules = append(rules, landlock.PathAccess(readFile, path).IgnoreIfMissing())
		}
	}
	if len(r.Write) > 0 {
		rules = append(rules, landlock.PathAccess(write, r.Write...))
	}
	for _, port := range r.Connect {
		rules = append(rules, landlock.ConnectTCP(port))
	}
	for _, port := range r.Bind {
		rules = append(rules, landlock.BindTCP(port))
	}
	return rules, nil
}
