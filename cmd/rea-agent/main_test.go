package main

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"github.com/rea-agent/rea/internal/agent"
	"github.com/rea-agent/rea/internal/cli"
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

func TestAReplayThatIsEndedIsNoFaultOfTheProgram(t *testing.T) {
	for err, want := range map[error]int{
		nil:              cli.OK,
		context.Canceled: cli.IO,
		fmt.Errorf("one file: %w", agent.ErrDamaged): cli.Data,
		errors.New("something else"):                 cli.Internal,
	} {
		if got := cli.Code(explainReplay(err)); got != want {
			t.Errorf("%v: code %d, want %d", err, got, want)
		}
	}
}

func TestTheTreeOfCommandsIsSound(t *testing.T) {
	if err := program(new(supervisor)).Check(); err != nil {
		t.Error(err)
	}
}
