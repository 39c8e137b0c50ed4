package access

import (
	"errors"
	"os"
	"slices"
	"testing"

	"golang.org/x/sys/unix"
)

// list gives a file an access list.
func (l layout) list(path string, list []byte) {
	l.t.Helper()
	err := unix.Setxattr(path, "system.posix_acl_access", list, 0)
	if errors.Is(err, unix.ENOTSUP) {
		l.t.Skip("SKIP access lists: this file system has none")
	}
	l.must(err)
}

func TestACredentialOfSystemdIsASecret(t *testing.T) {
	l := newLayout(t)
	key := l.file("key", 0o400)
	l.list(key, credential)
	info, err := os.Lstat(key)
	l.must(err)
	if info.Mode().Perm() != 0o440 {
		t.Fatalf("mode %v, want 0440: the mask", info.Mode())
	}
	expect(t, user{uid: 999}.judge("key", key, info, mayRead|mayWrite), "is open to others")
	expect(t, user{uid: 998}.judge("key", key, info, mayRead|mayWrite))
}

// Whom an access list names is not the owner's own group, although its rights stand
// in the mode as the group's.
func TestWhomAnAccessListNamesIsSomebodyElse(t *testing.T) {
	const bob, named, nobody = 4711, 1234, 1<<32 - 1
	for _, c := range []struct {
		name   string
		entry  entry
		uid    int // of the file
		groups []uint32
		write  []string
		read   []string
	}{
		{"a user that may write", entry{aclUser, 6, named}, bob, nil, []string{"can be written by others (mode 0664, owner 4711)", "chmod go-w"}, []string{"is open to others", "chmod 600"}},
		{"a group that may write", entry{aclGroup, 6, named}, bob, nil, []string{"can be written by others"}, []string{"is open to others"}},
		{"a user that may read", entry{aclUser, 4, named}, bob, nil, nil, []string{"is open to others"}},
		{"the owner", entry{aclUser, 6, bob}, bob, nil, nil, []string{"is open to others"}}, // everybody can read it
		{"root", entry{aclUser, 6, 0}, bob, nil, nil, []string{"is open to others"}},
		{"root's file and a user", entry{aclUser, 6, named}, 0, nil, []string{"can be written by others"}, []string{"is open to others"}},
		{"root's file and a group of this process", entry{aclGroup, 6, 50}, 0, []uint32{50}, nil, []string{"is open to others"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			l := newLayout(t)
			file := l.file("config", 0o664)
			entries := []entry{{0x01, 6, nobody}, c.entry, {aclGroupObj, 4, nobody}, {aclMask, 6, nobody}, {0x20, 4, nobody}}
			slices.SortFunc(entries, func(a, b entry) int { return int(a.tag) - int(b.tag) }) // or the kernel refuses it
			l.list(file, attribute(entries...))
			l.own("config", c.uid, c.uid)
			u := user{uid: bob, groups: c.groups}
			expect(t, u.file("configuration", file, mayWrite), c.write...)
			expect(t, u.file("key", file, mayRead|mayWrite), c.read...)
			l.must(os.Chmod(file, 0o600)) // the remedy
			expect(t, u.file("key", file, mayRead|mayWrite))
		})
	}
}

func TestAnAccessListOfAFolderOnTheWayIsRead(t *testing.T) {
	const bob, named, nobody = 4711, 1234, 1<<32 - 1
	list := attribute(entry{0x01, 7, nobody}, entry{aclUser, 7, named}, entry{aclGroupObj, 5, nobody}, entry{aclMask, 7, nobody}, entry{0x20, 5, nobody})
	for uid, want := range map[int][]string{bob: {"can be written by others", "can exchange what is in it"}, 0: nil} { // root's are up to root
		l := newLayout(t)
		dir := l.folder("way", 0o755)
		l.file("way/config", 0o600)
		l.list(dir, list)
		l.own("way", uid, uid)
		l.own("way/config", bob, bob)
		expect(t, user{uid: bob}.file("configuration", l.at("way/config"), mayWrite), want...)
	}
}
