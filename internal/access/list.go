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

// others returns what the group, other groups and users but uid and root can do.
func (l list) others(uid uint32) uint32 {
	var rights, mask uint16 = 0, 7
	for _, e := range l {
		switch e.tag {
		case aclMask:
			mask = e.rights
		case aclGroupObj, aclGroup:
			rights |= e.rights
		case aclUser:
			if e.id != uid && e.id != 0 {
				rights |= e.rights
			}
		}
	}
	return uint32(rights & mask)
}
