package service

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"
)

func TestTheSIDOfAServiceIsThatOfItsName(t *testing.T) {
	for name, want := range map[string]string{
		"TrustedInstaller": "S-1-5-80-956008885-3418522649-1831038044-1853292631-2271478464", // winnt.h and every Windows
		"trustedinstaller": "S-1-5-80-956008885-3418522649-1831038044-1853292631-2271478464",
	} {
		if got := virtualSID(name); got != want {
			t.Errorf("%s has %s, want %s", name, got, want)
		}
	}
}

func TestWhoMayDoWhatInTheFoldersOfAService(t *testing.T) {
	const sid = "S-1-5-80-1"
	for _, c := range []struct {
		sid    string
		change bool
		want   string
	}{
		{sid, false, "O:BAD:PAI(A;OICI;FA;;;SY)(A;OICI;FA;;;BA)(A;OICI;0x1200a9;;;S-1-5-80-1)"},
		{sid, true, "O:BAD:PAI(A;OICI;FA;;;SY)(A;OICI;FA;;;BA)(A;OICI;0x1301bf;;;S-1-5-80-1)"},
		{"", true, "O:BAD:PAI(A;OICI;FA;;;SY)(A;OICI;FA;;;BA)"},
	} {
		if got := folderList(c.sid, c.change); got != c.want {
			t.Errorf("%q, %v: %s, want %s", c.sid, c.change, got, c.want)
		}
	}
}

func TestPackagesInstallTheSameUnit(t *testing.T) {
	ours, err := os.ReadFile("rea-agent.service")
	if err != nil {
		t.Fatal(err)
	}
	theirs, err := os.ReadFile(filepath.Join("..", "..", "packaging", "systemd", "rea-agent.service"))
	if err != nil || !bytes.Equal(ours, theirs) {
		t.Errorf("packaging/systemd/rea-agent.service is not internal/service/rea-agent.service: %v", err)
	}
}
