package access

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
	"unsafe"

	"github.com/rea-agent/rea/test/windows/wine"
	"golang.org/x/sys/windows"
)

// What a folder in ProgramData gets that is made without a list of its own.
const handedDown = "O:BAD:AI(A;OICIID;FA;;;SY)(A;OICIID;FA;;;BA)(A;OICIIOID;GA;;;CO)(A;OICIID;0x1200a9;;;BU)(A;CIID;DCLCRPCR;;;BU)"

func described(t *testing.T, text string) (*windows.SECURITY_DESCRIPTOR, dacl) {
	t.Helper()
	sd, err := windows.SecurityDescriptorFromString(text)
	if err != nil {
		t.Fatal(err)
	}
	d, err := listOf(sd)
	if err != nil {
		t.Fatal(err)
	}
	return sd, d
}

func self(t *testing.T) string {
	t.Helper()
	sid, err := account()
	if err != nil {
		t.Fatal(err)
	}
	return sid
}

func TestTheListOfAFolderOfOursIsForTheAccountAlone(t *testing.T) {
	self := self(t)
	sd, d := described(t, protected(self))
	if who := d.others(self, read|change); who != "" || d.foreign(self) || len(d.allow) != 3 {
		t.Errorf("%q has rights in %+v", who, d)
	}
	if control, _, err := sd.Control(); err != nil || control&windows.SE_DACL_PROTECTED == 0 {
		t.Errorf("what is above hands rights down to it: %v, %v", control, err)
	}
	if _, d := described(t, handedDown); d.others(self, read) != users || d.others(self, change) != users {
		t.Errorf("a folder in ProgramData passes: %+v", d)
	}
}

func TestTheFolderOfAKeyIsMadeWithThoseAboveIt(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "new", "below")
	key := filepath.Join(dir, "key")
	if err := errors.Join(Mkdir(dir+`\`), os.WriteFile(key, nil, 0o600), Mkdir(dir), Secret("key", key)); err != nil {
		t.Fatal(err)
	}
	if err := Mkdir(filepath.Join(key, "below")); err == nil {
		t.Error("a folder was made in a file")
	}
}

func TestTheFolderOfAKeyInheritsNothing(t *testing.T) {
	self, open := self(t), filepath.Join(t.TempDir(), "open")
	makeOpen(t, open)
	if d, err := rightsOf(open); err != nil || d.others(self, change) == "" {
		wine.Differs(t, "it makes modes of lists, and a folder that is open to everybody is not")
		t.Fatalf("%+v, %v: this test shows nothing", d, err)
	}
	above := filepath.Join(open, "new")
	dir := filepath.Join(above, "below")
	key := filepath.Join(dir, "key")
	if err := errors.Join(Mkdir(dir), os.WriteFile(key, nil, 0o600)); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{above, dir, key} {
		d, err := rightsOf(path)
		if err != nil {
			t.Fatal(err)
		}
		if who := d.others(self, read|change); who != "" || d.foreign(self) {
			t.Errorf("%s belongs to %s, and %q has rights", path, d.owner, who)
		}
	}
}

// makeOpen makes a folder in which everybody may do everything, also with what is
// made below it.
func makeOpen(t *testing.T, dir string) {
	t.Helper()
	sd, _ := described(t, "D:P(A;OICI;FA;;;WD)")
	path, err := windows.UTF16PtrFromString(dir)
	if err != nil {
		t.Fatal(err)
	}
	sa := windows.SecurityAttributes{SecurityDescriptor: sd}
	sa.Length = uint32(unsafe.Sizeof(sa))
	if err := windows.CreateDirectory(path, &sa); err != nil {
		t.Fatal(err)
	}
}
