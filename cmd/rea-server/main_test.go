package main

import (
	"context"
	"database/sql"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/rea-agent/rea/internal/server/store"
	"github.com/rea-agent/rea/internal/wire"
)

var update = flag.Bool("update", false, "write what the programs print into the scripts")

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"rea-server": main, "fill": fill, "spoil": spoil})
}

const node = "0190d1c0-0000-7000-8000-00000000000a"

func die(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// fill keeps a batch as a server does: fill FOLDER STREAM FIRST LAST ASSIGNED
// GAP…, where a stream is a hexadecimal digit and a gap CAUSE:COUNT or
// CAUSE:STREAM:FIRST:LAST. The gaps stand in the first lines.
func fill() {
	args := os.Args[1:]
	number := func(s string) uint64 {
		n, err := strconv.ParseUint(s, 10, 64)
		die(err)
		return n
	}
	first, last := number(args[2]), number(args[3])
	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	b := &store.Batch{
		Node: node, Stream: strings.Repeat(args[1], 32), First: first, Last: last, Assigned: number(args[4]), ID: "b", Agent: "rea-agent/1.2.3",
		Received: at, Earliest: at, Latest: at, Hosts: []string{"lab-7"}, Kinds: []string{"cpu", "gap"},
	}
	for seq := first; seq <= last; seq++ {
		kind, body := "cpu", "{}"
		if i := int(seq - first); i < len(args)-5 {
			kind = "gap"
			switch f := strings.Split(args[5+i], ":"); len(f) {
			case 2:
				body = fmt.Sprintf(`{"cause":%q,"source":"eventlog","count":%s}`, f[0], f[1])
			default:
				body = fmt.Sprintf(`{"cause":%q,"count":1,"stream":%q,"first":%s,"last":%s}`, f[0], strings.Repeat(f[1], 32), f[2], f[3])
			}
		}
		b.Lines = fmt.Appendf(b.Lines, `{"v":1,"time":"2026-01-02T03:04:05Z","node":%q,"hostname":"lab-7","stream":%q,"seq":%d,"kind":%q,%q:%s}`+"\n", node, b.Stream, seq, kind, kind, body)
	}
	s := wire.NewScanner(wire.DefaultLimits)
	for s.Reset(b.Lines); s.Scan(); {
		if string(s.Line().Kind) == "gap" {
			g, err := wire.ParseGap(s.Line())
			die(err)
			b.Gaps = append(b.Gaps, g)
		}
	}
	die(s.Err())
	db, err := store.Open(args[0])
	die(err)
	_, err = db.Put(context.Background(), b)
	die(errors.Join(err, db.Close()))
}

// spoil changes the database behind the back of the server: spoil FOLDER SQL.
func spoil() {
	db, err := sql.Open("sqlite", filepath.Join(os.Args[1], store.File))
	die(err)
	_, err = db.Exec(os.Args[2])
	die(errors.Join(err, db.Close()))
}

func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{Dir: "testdata/script", UpdateScripts: *update, RequireExplicitExec: true})
}

func TestTheTreeOfCommandsIsSound(t *testing.T) {
	if err := program().Check(); err != nil {
		t.Error(err)
	}
}

func TestSummariesAreShortAndTrue(t *testing.T) {
	for _, c := range []struct{ kind, body, want string }{
		{"cpu", `{"utilization":0.117,"load_average_1m":0.31,"logical_count":4}`, "11.7 % busy, load 0.31, 4 cores"},
		{"cpu", `{"utilization":1}`, "100.0 % busy"},
		{"cpu", `{}`, ""},
		{"memory", `{"total_bytes":17179869184,"used_bytes":4509715661,"swap_total_bytes":0,"swap_used_bytes":0}`, "4.2 GiB of 16 GiB used"},
		{"memory", `{"total_bytes":1000,"used_bytes":0,"swap_total_bytes":2048,"swap_used_bytes":1024}`, "0 B of 1.0 KiB used, swap 1.0 KiB of 2.0 KiB"},
		{"disk", `{"mounts":[{"mountpoint":"/","total_bytes":536870912000,"utilization":0.5},{"mountpoint":"/home","total_bytes":1e9,"utilization":0.75}],"devices":[{"read_bytes_per_second":1048576,"write_bytes_per_second":0},{"read_bytes_per_second":1048576}]}`,
			"2 mounts, fullest /home 75.0 % of 954 MiB, read 2.0 MiB/s, write 0 B/s"},
		{"network", `{"interfaces":[{"type":"loopback","receive_bytes_per_second":9},{"type":"ethernet","receive_bytes_per_second":5,"transmit_bytes_per_second":6}],"tcp":{"established_connections":1}}`,
			"2 interfaces, in 5 B/s, out 6 B/s, 1 connection"},
		{"process", `{"count":6,"threads":18,"top_cpu":[{"name":"db","cpu_utilization_core":1.5}],"top_memory":[{"name":"java","resident_bytes":368640000}]}`,
			"6 processes, 18 threads, most CPU db 150.0 %, most memory java 352 MiB"},
		{"host", `{"os":{"name":"Testix","version":"7.2"},"kernel":{"release":"6.18"},"architecture":"amd64","uptime_seconds":86402.25}`, "Testix 7.2, kernel 6.18, amd64, up 24h0m"},
		{"agent", `{"action":"source_down","source":"disk","reason":"timed out"}`, "source_down disk: timed out"},
		{"agent", `{"action":"start","version":"1.2.3"}`, "start 1.2.3"},
		{"gap", `{"cause":"queue_full","count":12,"first":3,"last":14}`, "12 events, 3 to 14, are missing: queue_full"},
		{"gap", `{"source":"disk","cause":"too_large","count":1}`, "1 events of disk are missing: too_large"},
		{"journal", `{"unit":"ssh.service","priority":6,"fields":{"a":1},"ok":true,"none":null}`, "unit=ssh.service priority=6 fields=… ok=true none="},
		{"cpu", `{"utilization":"much"}`, "utilization=much"},
	} {
		if got := summary(c.kind, []byte(c.body)); got != c.want {
			t.Errorf("%s %s:\n got %q\nwant %q", c.kind, c.body, got, c.want)
		}
	}
}

func FuzzSummary(f *testing.F) {
	f.Add("cpu", []byte(`{"utilization":0.117}`))
	f.Add("host", []byte(`{"os":{"name":"Testix"},"uptime_seconds":1e300}`))
	f.Add("x", []byte(`{"a":[1,2],"b":"c"}`))
	f.Fuzz(func(_ *testing.T, kind string, body []byte) { summary(kind, body) })
}
