package access

// Which rights on Windows matter (winnt.h). Those of files and of folders share
// their bits: to add a file to a folder is to write data into a file.
const (
	fileReadData    = 0x1
	fileWriteData   = 0x2 // add a file
	fileAppendData  = 0x4 // add a folder
	fileWriteEA     = 0x10
	fileDeleteChild = 0x40
	fileWriteAttrs  = 0x100
	stdDelete       = 0x10000
	stdWriteDAC     = 0x40000
	stdWriteOwner   = 0x80000
	genericAll      = 0x10000000
	genericWrite    = 0x40000000
	genericRead     = 0x80000000

	// exchange is to put something else in the place of a file or folder.
	exchange = fileDeleteChild | stdDelete | stdWriteDAC | stdWriteOwner | genericAll
	change   = exchange | fileWriteData | fileAppendData | fileWriteEA | fileWriteAttrs | genericWrite
	read     = fileReadData | genericRead | genericAll
)

// The accounts of Windows that can do everything anyway (well-known SIDs).
const (
	sidSystem           = "S-1-5-18"
	sidAdministrators   = "S-1-5-32-544"
	sidCreatorOwner     = "S-1-3-0"
	sidOwnerRights      = "S-1-3-4"
	sidTrustedInstaller = "S-1-5-80-956008885-3418522649-1831038044-1853292631-2271478464"
)

// A dacl is what Windows says of a file's rights.
type dacl struct {
	owner string // SID
	null  bool   // there is no list at all, which gives everybody everything
	allow []grant
}

// A grant is one entry of a list that allows. Those that deny are not counted:
// whether one takes effect depends on who is in which group.
type grant struct {
	sid         string
	mask        uint32
	inheritOnly bool // about what is made below, not about this one
}

// others returns a SID, of neither self nor an account that can do everything
// anyway, that has one of the rights; or "".
func (d dacl) others(self string, rights uint32) string {
	if d.null {
		return "S-1-1-0" // everyone
	}
	for _, g := range d.allow {
		if !g.inheritOnly && g.mask&rights != 0 && !trusted(g.sid, self) {
			return g.sid
		}
	}
	return ""
}

// foreign reports whether it belongs to another account, which can then change
// its list.
func (d dacl) foreign(self string) bool { return !trusted(d.owner, self) }

func trusted(sid, self string) bool {
	switch sid {
	case self, sidSystem, sidAdministrators, sidCreatorOwner, sidOwnerRights, sidTrustedInstaller:
		return true
	}
	return false
}

// protected is the list that a folder of ours is made with, in the language of
// security descriptors: SYSTEM, the administrators and the account itself,
// nobody else, and nothing inherited from above.
func protected(self string) string {
	return "O:" + self + "D:P(A;OICI;FA;;;SY)(A;OICI;FA;;;BA)(A;OICI;FA;;;" + self + ")"
}
