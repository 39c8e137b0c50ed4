package service

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/windows"

	"github.com/rea-agent/rea/internal/access"
	"github.com/rea-agent/rea/test/windows/wine"
)

// ourList lets the account of the test in, so that the folder can be removed again.
func ourList(t *testing.T) (list, sid string) {
	t.Helper()
	user, err := windows.GetCurrentProcessToken().GetTokenUser()
	if err != nil {
		t.Fatal(err)
	}
	sid = user.User.Sid.String()
	return "D:PAI(A;OICI;FA;;;SY)(A;OICI;FA;;;BA)(A;OICI;FA;;;" + sid + ")", sid
}

func TestAFolderIsMadeForThoseNamedAlone(t *testing.T) {
	list, _ := ourList(t)
	dir := filepath.Join(t.TempDir(), "REA")
	if made, err := makeFolder(dir, list, ""); !made || err != nil {
		t.Fatal(made, err)
	}
	if err := access.Folder("folder", dir); err != nil {
		t.Error(err)
	}
	if wine.Running() {
		return // makes modes of lists, and lists of modes
	}
	sd, err := windows.GetNamedSecurityInfo(dir, windows.SE_FILE_OBJECT, windows.DACL_SECURITY_INFORMATION)
	if err != nil {
		t.Fatal(err)
	}
	control, _, err := sd.Control()
	if err != nil || control&windows.SE_DACL_PROTECTED == 0 {
		t.Errorf("it inherits: %v, %v", sd, err)
	}
}

func TestAFolderThatIsNotOursIsRefused(t *testing.T) {
	list, sid := ourList(t)
	dir := t.TempDir()
	file, folder, link := filepath.Join(dir, "file"), filepath.Join(dir, "folder"), filepath.Join(dir, "link")
	if err := errors.Join(os.WriteFile(file, nil, 0o600), os.Mkdir(folder, 0o700)); err != nil {
		t.Fatal(err)
	}
	if _, err := makeFolder(file, list, ""); !errors.Is(err, ErrForeign) {
		t.Errorf("a file: %v", err)
	}
	if _, err := makeFolder(filepath.Join(dir, "none", "below"), list, ""); err == nil {
		t.Error("below a folder that is not there")
	}
	if err := os.Symlink(folder, link); err == nil {
		if _, err := os.Lstat(link); err == nil { // Wine says that it made one, and did not
			if _, err := makeFolder(link, list, ""); !errors.Is(err, ErrForeign) {
				t.Errorf("a link: %v", err)
			}
		}
	}
	// With the owner that it has.
	if made, err := makeFolder(folder, "O:"+sid+list, ""); made || err != nil {
		t.Errorf("ours: %v, %v", made, err)
	}
}

func TestDataThatIsALinkIsNotRemoved(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := removeData(file); !errors.Is(err, ErrForeign) {
		t.Errorf("what is no folder: %v", err)
	}
	if err := removeData(filepath.Join(dir, "none")); err != nil {
		t.Errorf("what is not there: %v", err)
	}
}

func TestAccountsThatWindowsKeepsItself(t *testing.T) {
	for name, want := range map[string][2]string{
		"":                          {`NT SERVICE\REA`, virtualSID("REA")},
		`nt service\rea`:            {`NT SERVICE\REA`, virtualSID("REA")},
		"LocalSystem":               {"LocalSystem", ""},
		`NT AUTHORITY\SYSTEM`:       {"LocalSystem", ""},
		"localservice":              {`NT AUTHORITY\LocalService`, "S-1-5-19"},
		`NT Authority\LocalService`: {`NT AUTHORITY\LocalService`, "S-1-5-19"},
		"NetworkService":            {`NT AUTHORITY\NetworkService`, "S-1-5-20"},
	} {
		account, sid, err := accountOf(name)
		if got := [2]string{account, sid}; got != want || err != nil {
			t.Errorf("%q is %q, %v, want %q", name, got, err, want)
		}
	}
	if _, _, err := accountOf(`nowhere\nobody`); err == nil {
		t.Error("an account that is none")
	}
}
