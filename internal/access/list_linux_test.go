package access

import (
	"os"
	"testing"

	"golang.org/x/sys/unix"
)

func TestACredentialOfSystemdIsASecret(t *testing.T) {
	l := newLayout(t)
	key := l.file("key", 0o400)
	if err := unix.Setxattr(key, "system.posix_acl_access", credential, 0); err != nil {
		t.Skipf("SKIP access lists: %v", err)
	}
	info, err := os.Lstat(key)
	l.must(err)
	if info.Mode().Perm() != 0o440 {
		t.Fatalf("mode %v, want 0440: the mask", info.Mode())
	}
	expect(t, user{uid: 999}.judge("key", key, info, mayRead|mayWrite), "is open to others")
	expect(t, user{uid: 998}.judge("key", key, info, mayRead|mayWrite))
}
