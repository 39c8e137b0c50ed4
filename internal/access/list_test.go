package access

import (
	"encoding/binary"
	"testing"
)

// attribute writes an access list as the kernel does.
func attribute(entries ...entry) []byte {
	b := binary.LittleEndian.AppendUint32(nil, 2)
	for _, e := range entries {
		b = binary.LittleEndian.AppendUint16(b, e.tag)
		b = binary.LittleEndian.AppendUint16(b, e.rights)
		b = binary.LittleEndian.AppendUint32(b, e.id)
	}
	return b
}

// credential is what systemd gives a service with the number 998.
var credential = attribute(entry{0x01, 4, 1<<32 - 1}, entry{aclUser, 4, 998}, entry{aclGroupObj, 0, 1<<32 - 1}, entry{aclMask, 4, 1<<32 - 1}, entry{0x20, 0, 1<<32 - 1})

func TestAnAccessListSaysWhoTheGroupIs(t *testing.T) {
	const bob = 4711 // also the number of the file's group
	for _, c := range []struct {
		name        string
		list        []byte
		uid         uint32
		own, others uint32
	}{
		{"the process itself", credential, 998, 0, 0},
		{"another one", credential, 999, 0, 4},
		{"root in the list", attribute(entry{aclUser, 7, 0}, entry{aclMask, 7, 0}), 998, 0, 0},
		{"the file's group", attribute(entry{aclGroupObj, 6, 0}, entry{aclMask, 7, 0}), 998, 6, 0},
		{"the file's group, named", attribute(entry{aclGroup, 6, bob}, entry{aclMask, 7, 0}), 998, 6, 0},
		{"another group", attribute(entry{aclGroup, 6, 12}, entry{aclMask, 7, 0}), 998, 0, 6},
		{"a user beside the file's group", attribute(entry{aclUser, 6, 1234}, entry{aclGroupObj, 4, 0}, entry{aclMask, 7, 0}), bob, 4, 6},
		{"the mask bounds it", attribute(entry{aclGroup, 6, 12}, entry{aclGroupObj, 7, 0}, entry{aclMask, 4, 0}), 998, 4, 4},
	} {
		l, ok := parseList(c.list)
		own, others := l.rights(c.uid, bob, func(gid uint32) bool { return gid == bob })
		if !ok || own != c.own || others != c.others {
			t.Errorf("%s: own groups can do %o, others %o, %v; want %o, %o", c.name, own, others, ok, c.own, c.others)
		}
	}
	for _, b := range [][]byte{nil, {2, 0}, {1, 0, 0, 0}, append(credential, 0)} {
		if _, ok := parseList(b); ok {
			t.Errorf("% x is taken for a list", b)
		}
	}
}
