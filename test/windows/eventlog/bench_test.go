//go:build wine

// Package eventlog tries the Windows agent over a double of the event log's
// library, under Wine, delivering over mTLS to a server on this system. It wants
// root, and what ../setup.sh makes: see make test-windows.
package eventlog

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/rea-agent/rea/test/rig"
)

var bin string // the folder of the binaries under test

func TestMain(m *testing.M) {
	os.Exit(rig.Main(m, func(dir string) []*exec.Cmd {
		bin = dir
		agent := rig.Build(dir, "rea-agent")
		agent.Env = append(agent.Env, "GOOS=windows", "GOARCH=amd64")
		return []*exec.Cmd{agent, rig.Build(dir, "rea-server"), exec.Command("../double.sh", filepath.Join(dir, "wevtapi.dll"))}
	}))
}

// A bench is a server on this system, and a folder that Windows sees as Z:\share,
// with an agent's configuration and an event log in it.
type bench struct {
	rig.Folder
	share  string
	status string // address of the agent's status page
}

func newBench(t *testing.T, collectors string) *bench {
	t.Helper()
	b := &bench{rig.Folder{T: t, Bin: bin, Dir: t.TempDir()}, t.TempDir(), rig.FreeAddress(t)}
	address := rig.FreeAddress(t)
	certs := filepath.Join(b.share, "certs")
	b.Certify(certs)
	b.Write("server.toml", rig.ServerConfig(address, "data", certs))
	var quiet strings.Builder
	for _, c := range []string{"cpu", "memory", "disk", "network", "process", "host"} {
		fmt.Fprintf(&quiet, "[collectors.%s]\nenabled = false\n", c)
	}
	b.Write(filepath.Join(b.share, "agent.toml"), rig.AgentConfig(b.status, address, `Z:\share\queue`)+`queue_max_bytes = "64MiB"
backoff_ms = "20..200"
`+rig.AgentTLS(`Z:\share\certs\ca.crt`, `Z:\share\certs\agent.crt`, `Z:\share\certs\agent.key`)+`[agent]
batch_interval_ms = 100
[collectors]
win_eventlog_start_at = "oldest"
`+collectors+"\n"+quiet.String())
	if err := os.Mkdir(filepath.Join(b.share, "wevt"), 0o700); err != nil {
		t.Fatal(err)
	}
	b.Start("rea-server", "--config", "server.toml")
	b.Until("the server listens", func() bool { return rig.Answers(address) })
	return b
}

// agent starts the agent under Wine. To kill it kills all of its namespaces.
func (b *bench) agent() *rig.Process {
	b.T.Helper()
	run, err := filepath.Abs("../exec.sh")
	if err != nil {
		b.T.Fatal(err)
	}
	cmd := exec.Command(run, filepath.Join(bin, "rea-agent.exe"), "--config", `Z:\share\agent.toml`)
	cmd.Dir = b.Dir
	cmd.Env = append(os.Environ(), "REA_SHARE="+b.share, "REA_WEVTAPI="+filepath.Join(bin, "wevtapi.dll"), `WEVT_DOUBLE=Z:\share\wevt`)
	return rig.Start(b.T, cmd)
}

// log appends records to the log of a channel.
func (b *bench) log(channel string, first, last int) {
	b.T.Helper()
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
	b.T.Helper()
	b.append(channel, func(w io.Writer) { b.record(w, origin, originID, id) })
}

func (b *bench) append(channel string, records func(io.Writer)) {
	b.T.Helper()
	f, err := os.OpenFile(filepath.Join(b.share, "wevt", channel+".log"), os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		b.T.Fatal(err)
	}
	w := bufio.NewWriter(f)
	records(w)
	if err := w.Flush(); err != nil {
		b.T.Fatal(err)
	}
	if err := f.Close(); err != nil {
		b.T.Fatal(err)
	}
}

// clear empties a log, as EvtClearLog does: those who read it find it stale.
func (b *bench) clear(channel string) {
	b.T.Helper()
	if err := os.Truncate(filepath.Join(b.share, "wevt", channel+".log"), 0); err != nil {
		b.T.Fatal(err)
	}
	time.Sleep(100 * time.Millisecond) // the double looks each 10 ms
}

// orders say which calls are to fail: see wevtapi.c.
func (b *bench) orders(channel, text string) {
	b.Write(filepath.Join(b.share, "wevt", channel+".orders"), text)
}

// balance wants the books of the server to balance.
func (b *bench) balance() {
	b.T.Helper()
	b.Must("rea-server", "verify", "--wait", "30s", "--config", "server.toml")
}

// arrived returns how often each record of a channel arrived.
func (b *bench) arrived(channel string) map[int]int {
	b.T.Helper()
	type record struct {
		Eventlog struct {
			Channel  string
			RecordID int `json:"record_id"`
		}
	}
	ids := map[int]int{}
	for _, r := range rig.Each[record](b.T, b.Events("--kind", "eventlog")) {
		if r.Eventlog.Channel == channel {
			ids[r.Eventlog.RecordID]++
		}
	}
	return ids
}

// stored returns how many events the server has, which costs less than to read them.
func (b *bench) stored() (n int) {
	b.T.Helper()
	for _, h := range rig.Each[struct{ Events int }](b.T, b.Hosts()) {
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
	b.T.Helper()
	for _, e := range rig.Each[struct{ Gap gap }](b.T, b.Events("--kind", "gap")) {
		gaps = append(gaps, e.Gap)
	}
	return gaps
}

// states returns the state of each channel, as /healthz says.
func (b *bench) states() map[string]string {
	var health struct {
		Sources map[string]struct {
			Parts map[string]struct{ State string }
		}
	}
	if err := json.Unmarshal([]byte(rig.Page(b.status, "/healthz")), &health); err != nil {
		return map[string]string{"": err.Error()}
	}
	states := map[string]string{}
	for name, part := range health.Sources["eventlog"].Parts {
		states[name] = part.State
	}
	return states
}
