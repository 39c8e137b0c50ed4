package main

import (
	"bytes"
	"strings"
	"testing"
)

func TestReport(t *testing.T) {
	var out bytes.Buffer
	r := report{out: &out, output: map[[2]string]string{}}
	err := r.read(strings.NewReader(`{"Action":"run","Package":"p","Test":"A"}
{"Action":"output","Package":"p","Test":"A","Output":"=== RUN   A\n"}
{"Action":"pass","Package":"p","Test":"A","Elapsed":0.1}
{"Action":"output","Package":"p","Test":"B","Output":"=== RUN   B\n"}
{"Action":"output","Package":"p","Test":"B","Output":"    b_test.go:1: no ps here\n"}
{"Action":"skip","Package":"p","Test":"B"}
{"Action":"output","Package":"p","Test":"C","Output":"    c_test.go:7: want 1\n"}
{"Action":"fail","Package":"p","Test":"C"}
{"Action":"build-output","ImportPath":"q","Output":"q.go:1: syntax error\n"}
{"Action":"pass","Package":"r","Elapsed":2}
make: something else
`))
	r.close()
	want := `--- FAIL: p C
    c_test.go:7: want 1
q.go:1: syntax error
ok    r                                                               2.0s
make: something else
SKIP  p B: b_test.go:1: no ps here
1 passed, 1 failed, 1 skipped
`
	if err != nil || out.String() != want {
		t.Errorf("%v\n%s", err, out.String())
	}
}
