package access

import "encoding/binary"

// A list is the access list of a file on Linux, as the attribute
// system.posix_acl_access has it (linux/posix_acl_xattr.h): a version, then for
// each entry a tag, its rights and a number.
//
// Where a file has one the group's part of the mode is the mask, an upper bound
// of all entries but the owner's. systemd gives a service its credentials like
// this, owned by root and readable by the service alone, and the mode says 0440.
type list []entry

type entry struct {
	tag, rights uint16
	id          uint32
}

// Tags (linux/posix_acl.h).
const (
	aclUser     = 0x02
	aclGroupObj = 0x04
	aclGroup    = 0x08
	aclMask     = 0x10
)

// parseList reads the attribute; ok is false if it is not of the known form.
func parseList(b []byte) (l list, ok bool) {
	const version, size = 2, 8
	if len(b) < 4 || binary.LittleEndian.Uint32(b) != version || (len(b)-4)%size != 0 {
		return nil, false
	}
	for b = b[4:]; len(b) > 0; b = b[size:] {
		l = append(l, entry{binary.LittleEndian.Uint16(b), binary.LittleEndian.Uint16(b[2:]), binary.LittleEndian.Uint32(b[4:])})
	}
	return l, true
}

// rights returns what groups that are nobody else (ours) can do, and what other
// groups and users but uid and root can. gid is the group of the file.
func (l list) rights(uid, gid uint32, ours func(gid uint32) bool) (own, others uint32) {
	mask := uint32(7)
	for _, e := range l {
		rights := uint32(e.rights)
		switch {
		case e.tag == aclMask:
			mask = rights
		case e.tag == aclGroupObj && ours(gid), e.tag == aclGroup && ours(e.id):
			own |= rights
		case e.tag == aclGroupObj, e.tag == aclGroup, e.tag == aclUser && e.id != uid && e.id != 0:
			others |= rights
		}
	}
	return own & mask, others & mask
}
