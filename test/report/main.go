// Command report reads what `go test -json` says and tells it to people: a line
// for each package, the whole output of what failed, and every skipped test with
// its reason, since a test that is silently skipped proves nothing.
//
//	go test -json ./... | go run ./test/report
//
// It ends with 1 if anything failed, and with -noskip also if anything was
// skipped, but for reasons that hold the text of -except.
package main

import (
	"bufio"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"os"
	"strings"
)

// An event is a line of test2json (https://pkg.go.dev/cmd/test2json).
type event struct {
	Action, Package, ImportPath, Test, Output string
	Elapsed                                   float64
}

func main() {
	noskip := flag.Bool("noskip", false, "fail if a test is skipped")
	except := flag.String("except", "", "but not if its reason holds this text")
	flag.Parse()
	r := report{out: os.Stdout, output: map[[2]string]string{}}
	if err := r.read(os.Stdin); err != nil {
		fmt.Fprintln(os.Stderr, "report:", err)
		os.Exit(1)
	}
	r.close()
	if r.failed > 0 || *noskip && r.unexcused(*except) > 0 {
		os.Exit(1)
	}
}

type report struct {
	out            io.Writer
	output         map[[2]string]string // of a test that is not over yet
	skipped        []string
	passed, failed int
}

func (r *report) read(in io.Reader) error {
	lines := bufio.NewReader(in)
	for {
		line, err := lines.ReadBytes('\n')
		if len(line) > 0 {
			var e event
			if json.Unmarshal(line, &e) != nil {
				fmt.Fprintf(r.out, "%s", line) // what is not of a test, as it is
			} else {
				r.take(e)
			}
		}
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

func (r *report) take(e event) {
	key := [2]string{e.Package, e.Test}
	switch e.Action {
	case "output":
		r.output[key] += e.Output
		return
	case "build-output":
		fmt.Fprint(r.out, e.Output)
		return
	case "pass", "fail", "skip":
	default:
		return
	}
	output := r.output[key]
	delete(r.output, key)
	switch {
	case e.Action == "fail":
		r.failed++
		fmt.Fprintf(r.out, "--- FAIL: %s %s\n%s", e.Package, e.Test, output)
	case e.Test == "" && e.Action == "pass":
		fmt.Fprintf(r.out, "ok    %-60s %6.1fs\n", e.Package, e.Elapsed)
	case e.Action == "skip" && e.Test != "":
		r.skipped = append(r.skipped, fmt.Sprintf("SKIP  %s %s: %s", e.Package, e.Test, reason(output)))
	case e.Action == "pass":
		r.passed++
	}
}

// reason finds what a test said when it skipped itself.
func reason(output string) string {
	for line := range strings.Lines(output) {
		line = strings.TrimSpace(line)
		if !strings.HasPrefix(line, "=== ") && !strings.HasPrefix(line, "--- ") && line != "" {
			return line
		}
	}
	return "no reason given"
}

// unexcused counts the skipped tests whose reason does not hold the text.
func (r *report) unexcused(text string) (n int) {
	for _, s := range r.skipped {
		if text == "" || !strings.Contains(s, text) {
			n++
		}
	}
	return n
}

func (r *report) close() {
	for _, s := range r.skipped {
		fmt.Fprintln(r.out, s)
	}
	fmt.Fprintf(r.out, "%d passed, %d failed, %d skipped\n", r.passed, r.failed, len(r.skipped))
}
