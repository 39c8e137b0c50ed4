package access

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"unsafe"

	"github.com/rea-agent/rea/internal/durable"
	"golang.org/x/sys/windows"
)

// Secret refuses a file that others could read or change. One that is not there
// is not refused: who opens it says so better.
func Secret(what, file string) error { return checkFile(what, file, change|read) }

// Guarded refuses a file that others could change. One that is not there is not
// refused, if nobody else can put it there.
func Guarded(what, file string) error { return checkFile(what, file, change) }

// Folder refuses a folder of ours in which others could change something, or
// that has a reparse point below. It makes the folder where it is missing, with a
// list of rights of its own: what ProgramData hands down lets every user add files.
func Folder(what, dir string) error {
	self, err := account()
	if err != nil {
		return err
	}
	dir = filepath.Clean(dir)
	if err := checkWay(what, filepath.Dir(dir), self); err != nil {
		return err
	}
	if err := makeFolder(dir, self); err != nil {
		return fmt.Errorf("make %s: %w", what, err)
	}
	return filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		switch {
		case errors.Is(err, fs.ErrNotExist):
			return nil // removed since
		case err != nil:
			return fmt.Errorf("examine %s: %w", what, err)
		case !d.IsDir() && !d.Type().IsRegular(), reparse(path):
			return &Error{what, path, "is a link or a reparse point", "find out who put it there, and remove it"}
		}
		return judge(what, path, self, change)
	})
}

// Mkdir makes the folder of a key and those above it that are missing, each for the
// account alone, as Folder does. One that is there stays as it is.
func Mkdir(dir string) error {
	self, err := account()
	if err != nil {
		return err
	}
	return makeFolder(filepath.Clean(dir), self)
}

func checkFile(what, file string, rights uint32) error {
	self, err := account()
	if err != nil {
		return err
	}
	// The way to a link, and the way to where it leads.
	if err := checkWay(what, filepath.Dir(file), self); err != nil {
		return err
	}
	var real string
	err = durable.Patiently(func() (err error) {
		real, err = filepath.EvalSymlinks(file)
		return err
	})
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("examine %s: %w", what, err)
	}
	if err := checkWay(what, filepath.Dir(real), self); err != nil {
		return err
	}
	return judge(what, real, self, rights)
}

// checkWay refuses a folder, up to the root, in which others could exchange what
// is not theirs.
func checkWay(what, dir, self string) error {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return err
	}
	for ; ; dir = filepath.Dir(dir) {
		d, err := rightsOf(dir)
		switch {
		case errors.Is(err, fs.ErrNotExist):
		case err != nil:
			return fmt.Errorf("examine %s: %w", what, err)
		default:
			if who := d.others(self, exchange); who != "" {
				return &Error{what, dir, "can be changed by " + name(who) + ", who can exchange what is in it", "icacls " + windowsQuote(dir) + " /remove *" + who}
			}
		}
		if dir == filepath.Dir(dir) {
			return nil
		}
	}
}

func judge(what, path, self string, rights uint32) error {
	d, err := rightsOf(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("examine %s: %w", what, err)
	}
	if d.foreign(self) {
		return &Error{what, path, "belongs to " + name(d.owner), "icacls " + windowsQuote(path) + " /setowner *" + self}
	}
	who := d.others(self, rights)
	if who == "" {
		return nil
	}
	problem := "can be changed by "
	if d.others(self, rights&change) == "" {
		problem = "can be read by "
	}
	return &Error{what, path, problem + name(who), "icacls " + windowsQuote(path) + " /inheritance:d /remove *" + who}
}

// account returns the SID that the process runs as; of a service, its own.
func account() (string, error) {
	u, err := windows.GetCurrentProcessToken().GetTokenUser()
	if err != nil {
		return "", fmt.Errorf("account of this process: %w", err)
	}
	return u.User.Sid.String(), nil
}

// rightsOf reads owner and list of what is at path.
func rightsOf(path string) (d dacl, err error) {
	var sd *windows.SECURITY_DESCRIPTOR
	err = durable.Patiently(func() (err error) { // it may be replaced just now
		sd, err = windows.GetNamedSecurityInfo(path, windows.SE_FILE_OBJECT, windows.OWNER_SECURITY_INFORMATION|windows.DACL_SECURITY_INFORMATION)
		return err
	})
	if err != nil {
		return dacl{}, &fs.PathError{Op: "read the rights of", Path: path, Err: err}
	}
	if d, err = listOf(sd); err != nil {
		return dacl{}, &fs.PathError{Op: "read the rights of", Path: path, Err: err}
	}
	return d, nil
}

func listOf(sd *windows.SECURITY_DESCRIPTOR) (d dacl, err error) {
	owner, _, err := sd.Owner()
	if err != nil {
		return dacl{}, err
	}
	if owner != nil {
		d.owner = owner.String()
	}
	list, _, err := sd.DACL()
	if errors.Is(err, windows.ERROR_OBJECT_NOT_FOUND) || err == nil && list == nil {
		d.null = true
		return d, nil
	}
	if err != nil {
		return dacl{}, err
	}
	for i := range uint32(list.AceCount) {
		var ace *windows.ACCESS_ALLOWED_ACE
		if err := windows.GetAce(list, i, &ace); err != nil {
			return dacl{}, err
		}
		if ace.Header.AceType != windows.ACCESS_ALLOWED_ACE_TYPE {
			continue
		}
		// The SID of an entry begins at SidStart and goes on behind it (winnt.h,
		// ACCESS_ALLOWED_ACE); the memory is the descriptor's, which Go holds.
		sid := (*windows.SID)(unsafe.Pointer(&ace.SidStart))
		d.allow = append(d.allow, grant{sid.String(), uint32(ace.Mask), ace.Header.AceFlags&windows.INHERIT_ONLY_ACE != 0})
	}
	return d, nil
}

// makeFolder makes the folder and those above it that are missing, each for the
// account alone.
func makeFolder(dir, self string) error {
	if _, err := os.Lstat(dir); err == nil {
		return nil
	}
	if above := filepath.Dir(dir); above != dir {
		if err := makeFolder(above, self); err != nil {
			return err
		}
	}
	sd, err := windows.SecurityDescriptorFromString(protected(self))
	if err != nil {
		return err
	}
	path, err := windows.UTF16PtrFromString(dir)
	if err != nil {
		return err
	}
	sa := windows.SecurityAttributes{SecurityDescriptor: sd}
	sa.Length = uint32(unsafe.Sizeof(sa)) // as CreateDirectory wants it
	if err := windows.CreateDirectory(path, &sa); err != nil && !errors.Is(err, windows.ERROR_ALREADY_EXISTS) {
		return &fs.PathError{Op: "mkdir", Path: dir, Err: err}
	}
	return nil
}

// reparse reports whether path is a reparse point of any kind: a junction or a
// mount is no link to Go, and leads elsewhere all the same.
func reparse(path string) bool {
	p, err := windows.UTF16PtrFromString(path)
	if err != nil {
		return false
	}
	attrs, err := windows.GetFileAttributes(p)
	return err == nil && attrs&windows.FILE_ATTRIBUTE_REPARSE_POINT != 0
}

// name returns the account of a SID as people know it.
func name(sid string) string {
	s, err := windows.StringToSid(sid)
	if err != nil {
		return sid
	}
	account, domain, _, err := s.LookupAccount("")
	if err != nil {
		return sid
	}
	if domain != "" {
		account = domain + `\` + account
	}
	return account + " (" + sid + ")"
}

func windowsQuote(path string) string { return `"` + path + `"` }
