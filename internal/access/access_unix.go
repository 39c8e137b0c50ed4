//go:build !windows

package access

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"github.com/rea-agent/rea/internal/durable"
)

// The rights that matter, as they stand in a mode for one class of users.
const (
	mayWrite = 0o2
	mayRead  = 0o4
)

// Secret refuses a file that others could read or change. One that is not there
// is not refused: who opens it says so better.
func Secret(what, file string) error { return account().file(what, file, mayRead|mayWrite) }

// Guarded refuses a file that others could change. One that is not there is not
// refused, if nobody else can put it there.
func Guarded(what, file string) error { return account().file(what, file, mayWrite) }

// Folder refuses a folder of ours in which others could change something, or
// that has something below that is neither a file nor a folder. It need not be
// there yet: then it is about the way to it.
func Folder(what, dir string) error { return account().folder(what, dir) }

// Mkdir makes the folder of a key and those above it that are missing, each for the
// account alone. One that is there stays as it is.
func Mkdir(dir string) error { return durable.Mkdir(dir, 0o700) }

// A user is who the process runs as.
type user struct {
	uid    uint32
	groups []uint32 // its own, and the others that it is in
}

func account() user {
	u := user{uid: uint32(os.Geteuid()), groups: []uint32{uint32(os.Getegid())}}
	more, _ := os.Getgroups() // fewer groups only make the checks stricter
	for _, g := range more {
		u.groups = append(u.groups, uint32(g))
	}
	return u
}

func (u user) file(what, file string, rights uint32) error {
	path, info, err := u.follow(what, file)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return told(what, err)
	}
	return u.judge(what, path, info, rights)
}

func (u user) folder(what, dir string) error {
	dir = filepath.Clean(dir) // without a slash at its end, which follows a link
	info, err := os.Lstat(dir)
	if err == nil && info.Mode()&fs.ModeSymlink != 0 {
		return &Error{what, dir, "is a symbolic link", "name the folder that it leads to"}
	}
	path, info, err := u.follow(what, dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return told(what, err)
	}
	return u.below(what, path, info)
}

// below judges what is at path, and all below.
func (u user) below(what, path string, info fs.FileInfo) error {
	switch {
	case info.Mode()&fs.ModeSymlink != 0:
		return &Error{what, path, "is a symbolic link in a folder of ours", "find out who put it there, and remove it: rm " + quote(path)}
	case !info.IsDir() && !info.Mode().IsRegular():
		return &Error{what, path, "is neither a file nor a folder", "find out who put it there, and remove it: rm " + quote(path)}
	}
	if err := u.judge(what, path, info, mayWrite); err != nil || !info.IsDir() {
		return err
	}
	entries, err := os.ReadDir(path)
	if errors.Is(err, fs.ErrPermission) {
		return nil // root's lost+found; what cannot be read cannot mislead
	}
	if err != nil {
		return told(what, err)
	}
	for _, e := range entries {
		info, err := e.Info()
		if errors.Is(err, fs.ErrNotExist) {
			continue // removed since
		}
		if err != nil {
			return told(what, err)
		}
		if err := u.below(what, filepath.Join(path, e.Name()), info); err != nil {
			return err
		}
	}
	return nil
}

// judge refuses what belongs to somebody else, and what gives one of the rights
// to others.
func (u user) judge(what, path string, info fs.FileInfo, rights uint32) error {
	owner := ownerOf(info)
	if owner.uid != u.uid && owner.uid != 0 {
		return &Error{what, path, fmt.Sprintf("belongs to another user (owner %d, mode %04o)", owner.uid, mode(info)),
			fmt.Sprintf("chown %s %s", u.name(), quote(path))}
	}
	own, group, others := u.rights(path, info)
	found := (group | others) & rights
	if rights&mayRead != 0 {
		found |= own & rights
	}
	if found == 0 {
		return nil
	}
	problem, remedy := "can be written by others", "chmod go-w "
	switch {
	case found&mayRead != 0:
		problem, remedy = "is open to others", "chmod 600 "
	case rights&mayRead != 0:
		remedy = "chmod 600 "
	}
	return &Error{what, path, fmt.Sprintf("%s (mode %04o, owner %d)", problem, mode(info), owner.uid), remedy + quote(path)}
}

// rights returns what groups that are nobody else (owns) can do, what other groups
// and those users can that an access list names, and what everybody can.
func (u user) rights(path string, info fs.FileInfo) (own, group, others uint32) {
	perm, owner := uint32(info.Mode().Perm()), ownerOf(info)
	group, others = perm>>3&7, perm&7
	if group == 0 {
		return 0, 0, others // it bounds an access list, too
	}
	ours := func(gid uint32) bool { return u.owns(owner.uid, gid) }
	if list, ok := readList(path); ok {
		own, group = list.rights(u.uid, owner.gid, ours)
	} else if ours(owner.gid) {
		own, group = group, 0
	}
	return own, group, others
}

// owns reports whether a group that has rights to what uid owns is nobody else: it
// is the owner's own group, by the convention that its number is the user's
// (pam_umask(8), usergroups); or it is how root lets this process write there.
func (u user) owns(uid, gid uint32) bool {
	if uid == 0 {
		return u.uid != 0 && slices.Contains(u.groups, gid)
	}
	return uid == gid
}

// follow goes to path as the system would, and judges every folder and link on
// the way. It returns where that is, without links, and what is there.
func (u user) follow(what, path string) (real string, info fs.FileInfo, err error) {
	path, err = filepath.Abs(path)
	if err != nil {
		return "", nil, err
	}
	at, todo := "/", strings.Split(path, "/")
	if info, err = os.Lstat(at); err != nil {
		return "", nil, err
	}
	for links := 0; len(todo) > 0; {
		name := todo[0]
		todo = todo[1:]
		if name == "" || name == "." {
			continue
		}
		if err := u.passes(what, at, info); err != nil {
			return "", nil, err
		}
		next := filepath.Join(at, name) // at has no links, so .. is what it seems
		found, err := os.Lstat(next)
		if err != nil {
			return "", nil, err
		}
		if owner := ownerOf(found); name != ".." && shared(info) && owner.uid != u.uid && owner.uid != 0 {
			return "", nil, &Error{what, next, fmt.Sprintf("belongs to another user (owner %d), in a folder where everybody may put things", owner.uid), "name another place"}
		}
		if found.Mode()&fs.ModeSymlink == 0 {
			at, info = next, found
			continue
		}
		target, err := os.Readlink(next)
		if links++; err == nil && links > 40 {
			err = &fs.PathError{Op: "follow", Path: path, Err: syscall.ELOOP}
		}
		if err != nil {
			return "", nil, err
		}
		if filepath.IsAbs(target) {
			at = "/"
			if info, err = os.Lstat(at); err != nil {
				return "", nil, err
			}
		}
		todo = append(strings.Split(target, "/"), todo...)
	}
	return at, info, nil
}

// passes refuses a folder on the way in which others could exchange what is not
// theirs. Whom root lets write into its folders, as into /var/log, is up to root.
func (u user) passes(what, dir string, info fs.FileInfo) error {
	if !info.IsDir() || info.Mode()&fs.ModeSticky != 0 {
		return nil
	}
	owner := ownerOf(info)
	_, group, others := u.rights(dir, info)
	if owner.uid == 0 {
		group = 0
	}
	if (group|others)&mayWrite == 0 {
		return nil
	}
	return &Error{what, dir, fmt.Sprintf("can be written by others (mode %04o, owner %d), who can exchange what is in it", mode(info), owner.uid), "chmod go-w " + quote(dir)}
}

// shared reports whether everybody may put things into the folder.
func shared(dir fs.FileInfo) bool {
	return dir.IsDir() && dir.Mode()&fs.ModeSticky != 0 && dir.Mode().Perm()&0o022 != 0
}

// name is what chown(1) calls the user.
func (u user) name() string {
	if u.uid == 0 {
		return "root"
	}
	return fmt.Sprint(u.uid)
}

type owner struct{ uid, gid uint32 }

func ownerOf(info fs.FileInfo) owner {
	st := info.Sys().(*syscall.Stat_t) // what os.Lstat has on every Unix
	return owner{st.Uid, st.Gid}
}

// mode returns the mode as chmod(1) writes it.
func mode(info fs.FileInfo) uint32 {
	m := uint32(info.Mode().Perm())
	if info.Mode()&fs.ModeSticky != 0 {
		m |= 0o1000
	}
	return m
}

// told says of an error from the system what for the file was looked at.
func told(what string, err error) error {
	if _, ok := errors.AsType[*Error](err); ok {
		return err
	}
	return fmt.Errorf("examine %s: %w", what, err)
}

// quote makes a word of a shell's command of a path.
func quote(path string) string {
	plain := func(r rune) bool {
		return r == '/' || r == '.' || r == '-' || r == '_' || r >= '0' && r <= '9' || r >= 'A' && r <= 'Z' || r >= 'a' && r <= 'z'
	}
	if strings.IndexFunc(path, func(r rune) bool { return !plain(r) }) < 0 {
		return path
	}
	return "'" + strings.ReplaceAll(path, "'", `'\''`) + "'"
}
