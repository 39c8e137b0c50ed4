package access

import "testing"

// Lists as icacls shows them on Windows 11, with the bits that it abbreviates.
const (
	full          = 0x1f01ff
	modify        = 0x1301bf
	readExecute   = 0x1200a9
	addBelow      = 0x116 // WD,AD,WEA,WA, as ProgramData hands it down to users
	users         = "S-1-5-32-545"
	authenticated = "S-1-5-11"
	everyone      = "S-1-1-0"
	service       = "S-1-5-80-1184457765-4068085190-3456807688-2200952327-3769537534" // as NT SERVICE\REA may have
)

func TestWhoElseHasARight(t *testing.T) {
	both := []grant{{sid: sidSystem, mask: full}, {sid: sidAdministrators, mask: full}}
	with := func(more ...grant) dacl {
		return dacl{owner: sidAdministrators, allow: append(append([]grant(nil), both...), more...)}
	}
	for _, c := range []struct {
		name                   string
		list                   dacl
		read, change, exchange string // who has it
	}{
		{"ours", with(grant{sid: service, mask: full}), "", "", ""},
		{"what Program Files hands down", with(grant{sid: users, mask: readExecute}), users, "", ""},
		{"what ProgramData hands down", with(grant{sid: users, mask: readExecute}, grant{sid: users, mask: addBelow}, grant{sid: sidCreatorOwner, mask: full, inheritOnly: true}), users, users, ""},
		{"the root of a disk", with(grant{sid: users, mask: readExecute}, grant{sid: authenticated, mask: modify, inheritOnly: true}, grant{sid: authenticated, mask: fileAppendData}), users, authenticated, ""},
		{"a folder in the root of a disk", with(grant{sid: authenticated, mask: modify}), authenticated, authenticated, authenticated},
		{"everyone, in general terms", with(grant{sid: everyone, mask: genericAll}), everyone, everyone, everyone},
		{"everyone reads, in general terms", with(grant{sid: everyone, mask: genericRead}), everyone, "", ""},
		{"who may change the list", with(grant{sid: users, mask: stdWriteDAC}), "", users, users},
		{"no list", dacl{owner: sidSystem, null: true}, everyone, everyone, everyone},
		{"an empty list", dacl{owner: sidSystem}, "", "", ""},
		{"only what is made below", with(grant{sid: everyone, mask: full, inheritOnly: true}), "", "", ""},
	} {
		for what, got := range map[string][2]string{
			"read":     {c.list.others(service, read), c.read},
			"change":   {c.list.others(service, change), c.change},
			"exchange": {c.list.others(service, exchange), c.exchange},
		} {
			if got[0] != got[1] {
				t.Errorf("%s: %q can %s it, want %q", c.name, got[0], what, got[1])
			}
		}
	}
}

func TestWhoseItIs(t *testing.T) {
	for owner, foreign := range map[string]bool{sidSystem: false, sidAdministrators: false, service: false, sidTrustedInstaller: false, users: true, "S-1-5-21-1-2-3-1001": true, "": true} {
		if (dacl{owner: owner}).foreign(service) != foreign {
			t.Errorf("owner %q: foreign is %v", owner, !foreign)
		}
	}
	if got, want := protected(service), "O:"+service+"D:P(A;OICI;FA;;;SY)(A;OICI;FA;;;BA)(A;OICI;FA;;;"+service+")"; got != want {
		t.Errorf("made with %s, want %s", got, want)
	}
}
