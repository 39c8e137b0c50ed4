//go:build wine

// Package eventlog tries the Windows agent over a double of the event log's
// library, under Wine, delivering over mTLS to a server on this system. It wants
// root, and what ../setup.sh makes: see make test-windows.
package eventlog

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

var bin string // the folder of the binaries under test

func TestMain(m *testing.M) {
	os.Exit(func() int {
		dir, err := os.MkdirTemp("", "rea-windows")
		if err != nil {
			panic(err)
		}
		defer os.RemoveAll(dir)
		bin = dir
		for _, build := range []*exec.Cmd{
			goBuild("windows", "rea-agent"), goBuild("linux", "rea-server"),
			exec.Command("../double.sh", filepath.Join(dir, "wevtapi.dll")),
		} {
			if out, err := build.CombinedOutput(); err != nil {
				fmt.Fprintf(os.Stderr, "%s: %v\n%s", build, err, out)
				return 1
			}
		}
		return m.Run()
	}())
}

func goBuild(system, name string) *exec.Cmd {
	cmd := exec.Command("go", "build", "-tags", "nethttpomithttp2", "-o", bin+"/", "../../../cmd/"+name)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOARCH=amd64", "GOOS="+system)
	return cmd
}

// A bench is a server on this system, and a folder that Windows sees as Z:\share,
// with an agent's configuration and an event log in it.
type bench struct {
	t          *testing.T
	dir, share string
	status     string // address of the agent's status page
}

func newBench(t *testing.T, collectors string) *bench {
	t.Helper()
	b := &bench{t: t, dir: t.TempDir(), share: t.TempDir(), status: freeAddress(t)}
	address := freeAddress(t)
	b.must("certs", "--dns", "127.0.0.1", "--dir", filepath.Join(b.share, "certs"))
	write(t, filepath.Join(b.dir, "server.toml"), fmt.Sprintf(`
[server]
listen = %q
data_dir = "data"
[tls]
cert_file = %q
key_file = %q
client_ca_file = %q
`, address, b.share+"/certs/server.crt", b.share+"/certs/server.key", b.share+"/certs/ca.crt"))
	_, port, _ := net.SplitHostPort(b.status)
	var quiet strings.Builder
	for _, c := range []string{"cpu", "memory", "disk", "network", "process", "host"} {
		fmt.Fprintf(&quiet, "[collectors.%s]\nenabled = false\n", c)
	}
	write(t, filepath.Join(b.share, "agent.toml"), fmt.Sprintf(`
[agent]
batch_interval_ms = 100
[collectors]
win_eventlog_start_at = "oldest"
%s
%s
[logging]
mode = "none"
[status]
enabled = true
port = %s
[networking]
enabled = true
endpoint = "https://%s"
queue_dir = 'Z:\share\queue'
queue_max_bytes = "64MiB"
backoff_ms = "20..200"
retry_budget = 10000
[tls]
ca_file = 'Z:\share\certs\ca.crt'
client_cert = 'Z:\share\certs\agent.crt'
client_key = 'Z:\share\certs\agent.key'
`, collectors, quiet.String(), port, address))
	if err := os.Mkdir(filepath.Join(b.share, "wevt"), 0o700); err != nil {
		t.Fatal(err)
	}
	b.start(exec.Command(filepath.Join(bin, "rea-server"), "--config", "server.toml"))
	b.until("the server listens", func() string {
		c, err := net.Dial("tcp", address)
		if err != nil {
			return err.Error()
		}
		c.Close()
		return ""
	})
	return b
}

func write(t *testing.T, name, text string) {
	t.Helper()
	if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func freeAddress(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// A process is the server, or an agent with the Wine that it runs in.
type process struct {
	*exec.Cmd
	log bytes.Buffer
}

func (b *bench) start(cmd *exec.Cmd) *process {
	b.t.Helper()
	p := &process{Cmd: cmd}
	cmd.Dir, cmd.Stdout, cmd.Stderr = b.dir, &p.log, &p.log
	if err := cmd.Start(); err != nil {
		b.t.Fatal(err)
	}
	b.t.Cleanup(func() {
		p.kill()
		if b.t.Failed() {
			b.t.Logf("%s:\n%s", filepath.Base(cmd.Path), p.log.Bytes())
		}
	})
	return p
}

// agent starts the agent under Wine. To kill it kills all of its namespaces.
func (b *bench) agent() *process {
	b.t.Helper()
	run, err := filepath.Abs("../exec.sh")
	if err != nil {
		b.t.Fatal(err)
	}
	cmd := exec.Command(run, filepath.Join(bin, "rea-agent.exe"), "--config", `Z:\share\agent.toml`)
	cmd.Env = append(os.Environ(), "REA_SHARE="+b.share, "REA_WEVTAPI="+filepath.Join(bin, "wevtapi.dll"), `WEVT_DOUBLE=Z:\share\wevt`)
	return b.start(cmd)
}

func (p *process) kill() {
	_ = p.Process.Kill()
	_ = p.Wait()
}

// log appends records to the log of a channel.
func (b *bench) log(channel string, first, last int) {
	b.t.Helper()
	b.append(channel, func(w io.Writer) {
		for id := first; id <= last; id++ {
			b.record(w, strings.ReplaceAll(channel, "!", "/"), id, id)
		}
	})
}

// record writes one record; the double takes a number before it for its id in the log.
func (b *bench) record(w io.Writer, channel string, id, inLog int) {
	if inLog != id {
		fmt.Fprintf(w, "%d ", inLog)
	}
	fmt.Fprintf(w, "<Event xmlns='http://schemas.microsoft.com/win/2004/08/events/event'><System><Provider Name='Double' Guid='{7c3a0000-0000-4000-8000-0000000000aa}'/><EventID>4624</EventID><Version>2</Version><Level>0</Level><Task>12544</Task>"+
		"<Opcode>0</Opcode><Keywords>0x8020000000000000</Keywords><TimeCreated SystemTime='%s'/><EventRecordID>%d</EventRecordID><Correlation/><Execution ProcessID='700' ThreadID='%d'/><Channel>%s</Channel><Computer>lab-7.example</Computer><Security/></System>"+
		"<EventData><Data Name='SubjectUserSid'>S-1-5-18</Data><Data Name='LogonType'>3</Data><Data Name='IpAddress'>10.1.%d.%d</Data><Data Name='ProcessName'>C:\\Windows\\System32\\svchost.exe</Data></EventData></Event>\n",
		time.Now().UTC().Format("2006-01-02T15:04:05.0000000Z"), id, id%9000, channel, id>>8&255, id&255)
}

// forward appends a record that was of another channel, with another number there.
func (b *bench) forward(channel, origin string, id, originID int) {
	b.t.Helper()
	b.append(channel, func(w io.Writer) { b.record(w, origin, originID, id) })
}

func (b *bench) append(channel string, records func(io.Writer)) {
	b.t.Helper()
	f, err := os.OpenFile(filepath.Join(b.share, "wevt", channel+".log"), os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		b.t.Fatal(err)
	}
	w := bufio.NewWriter(f)
	records(w)
	if err := w.Flush(); err != nil {
		b.t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		b.t.Fatal(err)
	}
}

// clear empties a log, as EvtClearLog does: those who read it find it stale.
func (b *bench) clear(channel string) {
	b.t.Helper()
	if err := os.Truncate(filepath.Join(b.share, "wevt", channel+".log"), 0); err != nil {
		b.t.Fatal(err)
	}
	time.Sleep(100 * time.Millisecond) // the double looks each 10 ms
}

// orders say which calls are to fail: see wevtapi.c.
func (b *bench) orders(channel, text string) {
	write(b.t, filepath.Join(b.share, "wevt", channel+".orders"), text)
}

// must runs rea-server to its end and returns what it printed.
func (b *bench) must(args ...string) []byte {
	b.t.Helper()
	cmd := exec.Command(filepath.Join(bin, "rea-server"), args...)
	cmd.Dir = b.dir
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		b.t.Fatalf("rea-server %s: %v\n%s%s", strings.Join(args, " "), err, out, stderr.Bytes())
	}
	return out
}

// balance wants the books of the server to balance.
func (b *bench) balance() {
	b.t.Helper()
	b.must("verify", "--wait", "30s", "--data-dir", "data")
}

// arrived returns how often each record of a channel arrived.
func (b *bench) arrived(channel string) map[int]int {
	b.t.Helper()
	ids := map[int]int{}
	for line := range bytes.Lines(b.events("eventlog")) {
		var e struct {
			Eventlog struct {
				Channel  string
				RecordID int `json:"record_id"`
			}
		}
		if err := json.Unmarshal(line, &e); err != nil {
			b.t.Fatalf("%v: %s", err, line)
		}
		if e.Eventlog.Channel == channel {
			ids[e.Eventlog.RecordID]++
		}
	}
	return ids
}

func (b *bench) events(kind string) []byte {
	return b.must("events", "--data-dir", "data", "--json", "--limit", "0", "--kind", kind)
}

// stored returns how many events the server has, which costs less than to read them.
func (b *bench) stored() (n int) {
	b.t.Helper()
	var hosts []struct{ Events int }
	if out := b.must("hosts", "--data-dir", "data", "--json"); len(out) > 0 {
		for line := range bytes.Lines(out) {
			var h struct{ Events int }
			if json.Unmarshal(line, &h) == nil {
				hosts = append(hosts, h)
			}
		}
	}
	for _, h := range hosts {
		n += h.Events
	}
	return n
}

// A gap is a gap event of the event log.
type gap struct {
	Source, Channel, Cause string
	FirstRecord            int `json:"first_record"`
	LastRecord             int `json:"last_record"`
	Count                  int
}

func (b *bench) gaps() (gaps []gap) {
	b.t.Helper()
	for line := range bytes.Lines(b.events("gap")) {
		var e struct{ Gap gap }
		if err := json.Unmarshal(line, &e); err != nil {
			b.t.Fatalf("%v: %s", err, line)
		}
		gaps = append(gaps, e.Gap)
	}
	return gaps
}

// states returns the state of each channel, as /healthz says.
func (b *bench) states() map[string]string {
	resp, err := http.Get("http://" + b.status + "/healthz")
	if err != nil {
		return map[string]string{"": err.Error()}
	}
	defer resp.Body.Close()
	var health struct {
		Sources map[string]struct {
			Parts map[string]struct{ State string }
		}
	}
	text, _ := io.ReadAll(resp.Body)
	if err := json.Unmarshal(text, &health); err != nil {
		return map[string]string{"": err.Error()}
	}
	states := map[string]string{}
	for name, part := range health.Sources["eventlog"].Parts {
		states[name] = part.State
	}
	return states
}

// until waits until f has nothing to complain of.
func (b *bench) until(what string, f func() string) {
	b.t.Helper()
	deadline := time.Now().Add(3 * time.Minute)
	for {
		complaint := f()
		if complaint == "" {
			return
		}
		if time.Now().After(deadline) {
			b.t.Fatalf("%s: %s", what, complaint)
		}
		time.Sleep(200 * time.Millisecond)
	}
}
