package main

import (
	"fmt"
	"testing"

	"github.com/rea-agent/rea/test/windows/wine"
	"github.com/rogpeppe/go-internal/testscript"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"rea-agent": main})
}

func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{Dir: "testdata", Condition: func(name string) (bool, error) {
		if name == "wine" {
			return wine.Running(), nil
		}
		return false, fmt.Errorf("there is no condition %q", name)
	}})
}

func TestTheTreeOfCommandsIsSound(t *testing.T) {
	if err := program(new(supervisor)).Check(); err != nil {
		t.Error(err)
	}
}
