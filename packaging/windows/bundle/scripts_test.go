package main

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// What a command or a function of PowerShell returns is a list only if there are
// two or more; of none or one, Count is an error under Set-StrictMode. No
// PowerShell runs these scripts before they are on Windows.
func TestScriptsCountListsOnly(t *testing.T) {
	bare := regexp.MustCompile(`(?:^|[^@\w$])\([A-Z][\w-]*(?: [^()]*)?\)\.Count`)
	for text, want := range map[string]bool{"(Numbers).Count": true, " (Gaps 'x').Count": true, "@(Numbers).Count": false, "@(Gaps 'x').Count": false} {
		if bare.MatchString(text) != want {
			t.Errorf("%s: %v", text, !want)
		}
	}
	scripts, err := filepath.Glob("../*.ps1")
	if err != nil || len(scripts) < 2 {
		t.Fatalf("%q, %v", scripts, err)
	}
	for _, name := range scripts {
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(string(text), "Set-StrictMode") {
			t.Errorf("%s is not strict", name)
		}
		for i, line := range strings.Split(string(text), "\n") {
			if bare.MatchString(line) {
				t.Errorf("%s:%d: write @(…).Count: %s", filepath.Base(name), i+1, strings.TrimSpace(line))
			}
		}
	}
}
