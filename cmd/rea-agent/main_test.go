package main

import (
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"rea-agent": main})
}

func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{Dir: "testdata"})
}

func TestTheTreeOfCommandsIsSound(t *testing.T) {
	if err := program().Check(); err != nil {
		t.Error(err)
	}
}
