// Command torture runs the torture bench, one part after the other, and prints
// what came of all of them as a table. It ends with 1 if anything failed.
//
//	go run ./test/torture -histories 200000 -kills 500 -cuts 200
//
// The parts are tests. What they say is printed as it comes; a line of it that
// has a row of the table goes into the table.
package main

import (
	"bufio"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"
)

// A row is a line of the table: what was done, how often, and the account of it.
type row struct {
	What                         string
	Many                         int
	Assigned, Received, Declared uint64
	Replayed                     uint64
	Lost, Repeated               int
	Undeclared, Wrong            int
	Seconds                      float64
	Seed                         uint64
	Note                         string
}

// rowMark stands in front of a row in what a test says.
const rowMark = "row "

// A part is one run of go test.
type part struct {
	what string
	args []string
}

func main() {
	histories := flag.String("histories", "200000", "how many histories of a queue are simulated")
	seed := flag.String("seed", "0", "seed of the histories; 0 draws one")
	kills := flag.String("kills", "500", "cycles of kill -9")
	cuts := flag.String("cuts", "200", "power cuts")
	only := flag.String("run", ".", "of the tests with processes, only those that match")
	flag.Parse()

	var t table
	for _, p := range []part{
		{"histories", []string{"./internal/queue", "-run", "TestHistories$|TestLiesAreFound", "-sim.histories", *histories, "-sim.seed", *seed}},
		{"herd", []string{"./internal/server/ingest", "-run", "Herd"}},
		{"processes", []string{"-tags", "torture", "-parallel", "8", "./test/torture", "-run", *only, "-torture.kills", *kills, "-torture.cuts", *cuts}},
		{"planted bugs", []string{"-tags", "torture", "./test/planted"}},
	} {
		t.run(p)
	}
	t.print(os.Stdout)
	if t.failed {
		os.Exit(1)
	}
}

// A table is what came of the parts so far.
type table struct {
	rows   []row
	failed bool
}

// run runs a part and adds its rows, and one of the whole part.
func (t *table) run(p part) {
	fmt.Printf("--- %s: go test %s\n", p.what, strings.Join(p.args, " "))
	began := time.Now()
	cmd := exec.Command("go", append([]string{"test", "-count", "1", "-timeout", "6h", "-v"}, p.args...)...)
	out, w := io.Pipe()
	cmd.Stdout, cmd.Stderr = w, w
	read := make(chan bool)
	go func() {
		defer close(read)
		t.read(io.TeeReader(out, os.Stdout))
	}()
	err := cmd.Run()
	w.Close()
	<-read
	whole := row{What: "all of " + p.what, Seconds: time.Since(began).Seconds()}
	if err != nil {
		t.failed = true
		whole.Note = "FAILED: " + err.Error()
	}
	t.rows = append(t.rows, whole)
}

// ended is what go test says of a test that did not pass.
var ended = regexp.MustCompile(`^\s*--- FAIL: (\S+) \(([0-9.]+)s\)`)

// read takes the rows out of what tests say, and makes one of each that failed.
func (t *table) read(in io.Reader) {
	lines := bufio.NewReader(in)
	for {
		line, err := lines.ReadString('\n')
		if r, ok := rowOf(line); ok {
			t.rows = append(t.rows, r)
		}
		if m := ended.FindStringSubmatch(line); m != nil {
			seconds, _ := strconv.ParseFloat(m[2], 64)
			t.rows = append(t.rows, row{What: m[1], Seconds: seconds, Note: "FAILED"})
		}
		if err != nil {
			return
		}
	}
}

func rowOf(line string) (r row, ok bool) {
	_, text, found := strings.Cut(line, rowMark+"{")
	return r, found && json.Unmarshal([]byte("{"+text), &r) == nil
}

// print writes the table. A row of what keeps no account of numbers has no zeros,
// which would look like results.
func (t *table) print(out io.Writer) {
	w := tabwriter.NewWriter(out, 0, 8, 2, ' ', 0)
	fmt.Fprintln(w, "\nWhat\tMany\tAssigned\tReceived\tDeclared\tReplayed\tLost\tRepeated\tUndeclared\tWrong\tSeconds\tSeed\tNote")
	for _, r := range t.rows {
		account := strings.Repeat("\t", 8)
		if r.Received > 0 {
			account = fmt.Sprintf("%s\t%d\t%d\t%d\t%d\t%d\t%d\t%d\t", unlessZero(r.Assigned), r.Received, r.Declared, r.Replayed, r.Lost, r.Repeated, r.Undeclared, r.Wrong)
		}
		fmt.Fprintf(w, "%s\t%s\t%s%.1f\t%s\t%s\n", r.What, unlessZero(uint64(r.Many)), account, r.Seconds, unlessZero(r.Seed), r.Note)
	}
	w.Flush()
}

func unlessZero(n uint64) string {
	if n == 0 {
		return ""
	}
	return strconv.FormatUint(n, 10)
}
