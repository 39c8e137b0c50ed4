package main

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestRowsAndFailuresBecomeTheTable(t *testing.T) {
	const said = `=== RUN   TestA
    a_test.go:3: row {"What":"kills","Many":3,"Assigned":7,"Received":6,"Declared":1,"Seconds":1.5,"Seed":9,"Note":"with a \"quote\""}
    a_test.go:4: a row of trees, and row {not this}
--- PASS: TestA (1.50s)
--- FAIL: TestB (2.00s)
    --- FAIL: TestB/one (1.25s)
    --- SKIP: TestB/two (0.00s)
FAIL`
	var got table
	got.read(strings.NewReader(said))
	want := []row{
		{What: "kills", Many: 3, Assigned: 7, Received: 6, Declared: 1, Seconds: 1.5, Seed: 9, Note: `with a "quote"`},
		{What: "TestB", Seconds: 2, Note: "FAILED"},
		{What: "TestB/one", Seconds: 1.25, Note: "FAILED"},
	}
	if d := cmp.Diff(want, got.rows); d != "" {
		t.Error(d)
	}
	var out strings.Builder
	got.print(&out)
	for _, part := range []string{"Undeclared", "kills", "TestB/one", "FAILED", `with a "quote"`} {
		if !strings.Contains(out.String(), part) {
			t.Errorf("the table lacks %q:\n%s", part, out.String())
		}
	}
}

func TestAPartThatFailsIsNotForgotten(t *testing.T) {
	var got table
	got.run(part{"nothing", []string{"./no/such/package"}})
	if !got.failed || len(got.rows) != 1 || !strings.HasPrefix(got.rows[0].Note, "FAILED") {
		t.Errorf("%+v", got)
	}
}
