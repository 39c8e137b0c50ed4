package confine

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestWhichKernelsAreEnough(t *testing.T) {
	for abi, want := range map[int]string{0: "has no Landlock", 1: "ABI 1,", 3: "ABI 3, files and TCP take ABI 4", 4: "", 99: ""} {
		err := enough(abi)
		if want == "" && err != nil || want != "" && (!errors.Is(err, ErrKernel) || !strings.Contains(err.Error(), want)) {
			t.Errorf("ABI %d: %v, want %q", abi, err, want)
		}
	}
}

func TestEachPathAndPortIsARule(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	r := Rules{Read: []string{dir, file, "/nowhere/at/all"}, Write: []string{dir}, Connect: []uint16{443, 53}, Bind: []uint16{9100}}
	rules, err := r.rules()
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, rule := range rules {
		got = append(got, fmt.Sprint(rule))
	}
	text := strings.Join(got, "\n")
	if len(rules) != 6 || strings.Contains(text, "nowhere") || strings.Contains(text, "execute") || !strings.Contains(text, file) {
		t.Errorf("%d rules:\n%s", len(rules), text)
	}
	if _, err := (Rules{Read: []string{file + "/below"}}).rules(); err == nil {
		t.Error("a path below a file is a rule")
	}
}
