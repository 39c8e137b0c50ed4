package access

import "golang.org/x/sys/unix"

// readList reads the access list of a file; ok is false if it has none.
func readList(path string) (l list, ok bool) {
	var b [4096]byte
	n, err := unix.Lgetxattr(path, "system.posix_acl_access", b[:])
	if err != nil {
		return nil, false
	}
	return parseList(b[:n])
}
