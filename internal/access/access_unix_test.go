//go:build !windows

package access

import (
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// A layout is a folder in which a test lays things out, with modes as they are
// given, whatever the umask.
type layout struct {
	t   *testing.T
	dir string
}

func newLayout(t *testing.T) layout {
	t.Helper()
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	l := layout{t, dir}
	l.must(os.Chmod(dir, 0o755))
	return l
}

func (l layout) must(err error) {
	l.t.Helper()
	if err != nil {
		l.t.Fatal(err)
	}
}

func (l layout) at(name string) string { return filepath.Join(l.dir, name) }

func (l layout) file(name string, mode fs.FileMode) string {
	l.t.Helper()
	l.must(os.WriteFile(l.at(name), []byte("text"), 0o600))
	l.must(os.Chmod(l.at(name), mode))
	return l.at(name)
}

func (l layout) folder(name string, mode fs.FileMode) string {
	l.t.Helper()
	l.must(os.MkdirAll(l.at(name), 0o700))
	l.must(os.Chmod(l.at(name), mode))
	return l.at(name)
}

func (l layout) link(target, name string) string {
	l.t.Helper()
	l.must(os.Symlink(target, l.at(name)))
	return l.at(name)
}

// own gives name to a user, which only root can.
func (l layout) own(name string, uid, gid int) {
	l.t.Helper()
	if os.Geteuid() != 0 {
		l.t.Skip("SKIP files of another user: only root can make them")
	}
	l.must(os.Lchown(l.at(name), uid, gid))
}

// expect checks that err is an Error that has all words, or nil for none.
func expect(t *testing.T, err error, words ...string) {
	t.Helper()
	if len(words) == 0 {
		if err != nil {
			t.Errorf("refused: %v", err)
		}
		return
	}
	if !errors.Is(err, ErrAccess) || !errors.Is(err, fs.ErrPermission) {
		t.Errorf("got %v, want an error about rights", err)
		return
	}
	for _, w := range words {
		if !strings.Contains(err.Error(), w) {
			t.Errorf("%q does not say %q", err, w)
		}
	}
}

func TestFilesAreJudgedByTheirModes(t *testing.T) {
	type check = func(what, file string) error
	for _, c := range []struct {
		name  string
		check check
		mode  fs.FileMode
		want  []string
	}{
		{"a key of its owner", Secret, 0o600, nil},
		{"a key that nobody changes", Secret, 0o400, nil},
		{"a key that the group reads", Secret, 0o640, []string{"the file ", "is open to others (mode 0640, owner ", ": chmod 600 /"}},
		{"a key that everybody reads", Secret, 0o604, []string{"is open to others", "chmod 600"}},
		{"a key that everybody writes", Secret, 0o602, []string{"can be written by others (mode 0602", "chmod 600"}},
		{"a key that the group writes", Secret, 0o620, []string{"can be written by others", "chmod 600"}},
		{"a configuration that everybody reads", Guarded, 0o644, nil},
		{"a configuration that everybody writes", Guarded, 0o666, []string{"can be written by others (mode 0666", "chmod go-w /"}},
		{"a folder of ours that others read", Folder, 0o755, nil},
		{"a folder of ours that everybody writes", Folder, 0o777, []string{"can be written by others (mode 0777", "chmod go-w"}},
		{"a folder of ours that is sticky", Folder, 0o777 | fs.ModeSticky, []string{"mode 1777"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			l := newLayout(t)
			path := l.at("it")
			if strings.Contains(c.name, "folder") {
				l.folder("it", c.mode)
			} else {
				l.file("it", c.mode)
			}
			expect(t, c.check("the file", path), c.want...)
		})
	}
}

func TestWhatIsMissingIsNotRefused(t *testing.T) {
	l := newLayout(t)
	for name, err := range map[string]error{
		"a file":              Guarded("f", l.at("none")),
		"a key":               Secret("f", l.at("none")),
		"a folder":            Folder("f", l.at("none/queue")),
		"a link to nowhere":   Guarded("f", l.link("nowhere", "lost")),
		"no name":             Guarded("f", ""),
		"a relative name":     Guarded("f", "none"),
		"a folder, not there": Folder("f", l.at("none")+"/"),
	} {
		if err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := Guarded("f", l.file("plain", 0o600)+"/below"); err == nil || errors.Is(err, ErrAccess) {
		t.Errorf("below a file: %v, want the system's error", err)
	}
}

func TestAFolderOnTheWayThatOthersCanWriteToIsRefused(t *testing.T) {
	for _, c := range []struct {
		name string
		mode fs.FileMode
		want []string
	}{
		{"closed", 0o755, nil},
		{"open to everybody", 0o777, []string{"/open can be written by others (mode 0777", "exchange", "chmod go-w /"}},
		{"sticky", 0o777 | fs.ModeSticky, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			l := newLayout(t)
			l.folder("open/inner", 0o755)
			l.folder("open", c.mode)
			file := l.file("open/inner/file", 0o600)
			l.link("open/inner/file", "link")
			expect(t, Secret("key", file), c.want...)
			expect(t, Guarded("certificate", l.at("link")), c.want...)
			expect(t, Folder("queue", l.at("open/inner")), c.want...)
			expect(t, Folder("queue", l.at("open/inner/new")), c.want...)
		})
	}
}

func TestTheWayOfALinkIsJudgedToo(t *testing.T) {
	l := newLayout(t)
	l.folder("safe", 0o755)
	l.folder("open", 0o777)
	l.file("safe/cert", 0o644)
	link := l.link(l.at("safe/cert"), "open/cert")
	expect(t, Guarded("certificate", link), "/open can be written by others")
	// As Kubernetes mounts a secret, and as certbot keeps what is live.
	l.folder("mount", 0o777|fs.ModeSticky)
	l.folder("mount/..2026", 0o755)
	l.link("..2026", "mount/..data")
	l.link("..data/tls.crt", "mount/tls.crt")
	l.file("mount/..2026/tls.crt", 0o644)
	expect(t, Guarded("certificate", l.at("mount/tls.crt")))
	l.folder("live", 0o755)
	l.link("../safe/cert", "live/cert")
	expect(t, Guarded("certificate", l.at("live/cert")))
	expect(t, Guarded("certificate", l.at("live/../live/cert")))
	l.must(os.Chmod(l.at("safe/cert"), 0o666))
	expect(t, Guarded("certificate", l.at("live/cert")), "/safe/cert can be written by others")
	l.link("loop", "loop")
	if err := Guarded("certificate", l.at("loop")); !errors.Is(err, syscall.ELOOP) {
		t.Errorf("a link to itself: %v", err)
	}
}

func TestLinksInAFolderOfOursAreRefused(t *testing.T) {
	l := newLayout(t)
	l.folder("queue/metrics", 0o700)
	l.file("queue/metrics/segment", 0o600)
	queue := l.at("queue")
	expect(t, Folder("queue", queue))
	l.link("queue", "alias")
	expect(t, Folder("queue", l.at("alias")), "alias is a symbolic link", "name the folder that it leads to")
	expect(t, Folder("queue", l.at("alias")+"/"), "is a symbolic link")
	expect(t, Folder("queue", l.at("alias/metrics")))
	l.link("/etc/passwd", "queue/metrics/segment 2")
	expect(t, Folder("queue", queue), "segment 2 is a symbolic link in a folder of ours", "rm '"+queue+"/metrics/segment 2'")
	l.must(os.Remove(l.at("queue/metrics/segment 2")))
	l.must(syscall.Mkfifo(l.at("queue/pipe"), 0o600))
	expect(t, Folder("queue", queue), "is neither a file nor a folder")
	l.must(os.Remove(l.at("queue/pipe")))
	l.must(os.Chmod(l.at("queue/metrics/segment"), 0o602))
	expect(t, Folder("queue", queue), "/segment can be written by others")
	l.must(os.Chmod(l.at("queue/metrics/segment"), 0o600))
	l.must(os.Chmod(l.at("queue/metrics"), 0o757))
	expect(t, Folder("queue", queue), "/metrics can be written by others")
}

func TestOwners(t *testing.T) {
	l := newLayout(t)
	l.folder("other", 0o755)
	l.file("other/key", 0o600)
	l.file("other/config", 0o644)
	l.folder("other/queue", 0o700)
	const bob, carol = 4711, 4712
	for _, name := range []string{"other", "other/key", "other/config", "other/queue"} {
		l.own(name, bob, bob)
	}
	for _, c := range []struct {
		name string
		user user
		want []string
	}{
		{"the owner", user{uid: bob}, nil},
		{"root", user{uid: 0}, []string{"belongs to another user (owner 4711, mode 0", "chown root /"}},
		{"somebody else", user{uid: carol}, []string{"belongs to another user (owner 4711", "chown 4712 /"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			expect(t, c.user.file("key", l.at("other/key"), mayRead|mayWrite), c.want...)
			expect(t, c.user.file("configuration", l.at("other/config"), mayWrite), c.want...)
			expect(t, c.user.folder("queue", l.at("other/queue")), c.want...)
		})
	}
	l.file("roots", 0o600)
	l.own("roots", 0, 0)
	expect(t, user{uid: carol}.file("key", l.at("roots"), mayRead|mayWrite))
	l.folder("tmp", 0o777|fs.ModeSticky)
	l.folder("tmp/planted", 0o755)
	l.own("tmp/planted", bob, bob)
	l.link("../roots", "tmp/link")
	l.own("tmp/link", bob, bob)
	for _, path := range []string{"tmp/planted/queue", "tmp/link"} {
		expect(t, user{uid: carol}.file("it", l.at(path), mayWrite), "belongs to another user (owner 4711), in a folder where everybody may put things")
	}
}

func TestWhoseGroupMayWrite(t *testing.T) {
	const bob, staff = 4711, 50
	for _, c := range []struct {
		name                   string
		user                   user
		uid, gid               int
		file, folder, onTheWay bool // whether it passes
	}{
		{"the owner's own group", user{uid: bob}, bob, bob, true, true, true},
		{"another group of the owner", user{uid: bob, groups: []uint32{staff}}, bob, staff, false, false, false},
		{"root's folders are up to root", user{uid: bob}, 0, staff, false, false, true},
		{"a group that root lets this process in by", user{uid: bob, groups: []uint32{staff}}, 0, staff, true, true, true},
		{"root's group", user{groups: []uint32{0}}, 0, 0, false, false, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			l := newLayout(t)
			l.folder("d", 0o775)
			l.file("d/f", 0o664)
			l.own("d", c.uid, c.gid)
			l.own("d/f", c.uid, c.gid)
			passed := func(what string, err error, want bool) {
				t.Helper()
				if (err == nil) != want {
					t.Errorf("%s: %v", what, err)
				}
			}
			passed("folder", c.user.folder("it", l.at("d")), c.folder)
			info, err := os.Lstat(l.at("d/f"))
			l.must(err)
			passed("file", c.user.judge("it", l.at("d/f"), info, mayWrite), c.file)
			info, err = os.Lstat(l.at("d"))
			l.must(err)
			passed("on the way", c.user.passes("it", l.at("d"), info), c.onTheWay)
			expect(t, c.user.judge("key", l.at("d"), info, mayRead|mayWrite), "is open to others")
		})
	}
}

// TestAnotherUser runs the checks in a process of another user.
func TestAnotherUser(t *testing.T) {
	if os.Getenv("ACCESS_TEST_DIR") != "" {
		judgeAsAnother(t, layout{t, os.Getenv("ACCESS_TEST_DIR")})
		return
	}
	const nobody = 65534
	l := newLayout(t)
	l.must(os.Chmod(filepath.Dir(l.dir), 0o755))
	l.folder("own", 0o700)
	l.file("own/key", 0o600)
	l.file("roots.key", 0o644)
	l.file("foreign.key", 0o644)
	l.own("own", nobody, nobody)
	l.own("own/key", nobody, nobody)
	l.own("foreign.key", 4711, 4711)
	l.folder("closed", 0o700)
	program := l.at("test")
	self, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		t.Skip("SKIP a process of another user: there is no /proc/self/exe")
	}
	l.must(os.WriteFile(program, self, 0o755))
	cmd := exec.Command(program, "-test.run", "^TestAnotherUser$", "-test.v")
	cmd.Dir = "/"
	cmd.Env = []string{"ACCESS_TEST_DIR=" + l.dir}
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}
	out, err := cmd.CombinedOutput()
	if err != nil || !strings.Contains(string(out), "judged as 65534") {
		t.Errorf("%v\n%s", err, out)
	}
}

func judgeAsAnother(t *testing.T, l layout) {
	t.Logf("judged as %d", os.Geteuid())
	expect(t, Secret("key", l.at("own/key")))
	expect(t, Folder("queue", l.at("own")))
	expect(t, Guarded("certificate", l.at("roots.key")))
	expect(t, Secret("key", l.at("roots.key")), "is open to others (mode 0644, owner 0)")
	expect(t, Guarded("certificate", l.at("foreign.key")), "belongs to another user (owner 4711", "chown 65534")
	if err := Guarded("certificate", l.at("closed/file")); !errors.Is(err, fs.ErrPermission) || errors.Is(err, ErrAccess) {
		t.Errorf("in a closed folder: %v, want the system's error", err)
	}
}
