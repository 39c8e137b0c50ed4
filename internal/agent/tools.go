package agent

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/rea-agent/rea/internal/deadletter"
	"github.com/rea-agent/rea/internal/identity"
	"github.com/rea-agent/rea/internal/queue"
	"github.com/rea-agent/rea/internal/wire"
)

// This file is for people who look into the queue of an agent, running or not.

var (
	// ErrNoQueue says that no agent has used the folder.
	ErrNoQueue = errors.New("no agent has used this folder")
	// ErrRefused says that the server refused a letter for its content: it will
	// do so again.
	ErrRefused = errors.New("refused for its content")
)

// laneFolders are the folders of the lanes in the queue's, in the order in which
// they are shown.
var laneFolders = [...]string{"evidence", "metrics"}

// A QueueLane is one lane as it lies on the disk.
type QueueLane struct {
	Name string
	*queue.Inspection
}

// QueueLanes inspects the lanes in the folder queueDir. It takes no lock.
func QueueLanes(queueDir string) (lanes []QueueLane, err error) {
	for _, name := range laneFolders {
		in, err := queue.Inspect(filepath.Join(queueDir, name))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		lanes = append(lanes, QueueLane{name, in})
	}
	if lanes == nil {
		return nil, noQueue(queueDir)
	}
	return lanes, nil
}

func noQueue(dir string) error {
	return &kind{fmt.Errorf("%s: %w", dir, ErrNoQueue), ErrNoQueue}
}

// exportBytes bounds what one record may decode to: a writer gathers
// wire.RecordBytes, or a single longer line.
const exportBytes = 8 << 20

// Export writes the events that are not delivered, or all that are still there,
// as lines of NDJSON, one record a Write. What cannot be read is told to torn
// and passed over; a record of which the server has a part comes whole.
func (l QueueLane) Export(w io.Writer, all bool, torn func(error)) error {
	d := wire.NewDecompressor()
	var lines []byte
	for r, err := range l.Records(all) {
		if err != nil {
			torn(err)
			continue
		}
		data := r.Data
		if wire.IsZstd(data) {
			if lines, err = d.Decode(lines[:0], data, exportBytes); err != nil {
				torn(fmt.Errorf("numbers %d to %d: %w", r.First, r.First+uint64(r.Count)-1, err))
				continue
			}
			data = lines
		}
		if _, err := w.Write(data); err != nil {
			return err
		}
	}
	return nil
}

// A Letter is an event that the server refused.
type Letter = deadletter.Letter

// DeadLetters lists the letters in the folder queueDir, oldest first.
func DeadLetters(queueDir string) ([]Letter, error) {
	if _, err := os.Stat(queueDir); errors.Is(err, fs.ErrNotExist) {
		return nil, noQueue(queueDir)
	}
	return deadletter.List(filepath.Join(queueDir, lettersFolder))
}

// RemoveDeadLetter removes a letter of DeadLetters.
func RemoveDeadLetter(queueDir string, l Letter) error {
	return deadletter.Remove(filepath.Join(queueDir, lettersFolder), l)
}

// A Replay sends dead letters again, each with the number that it had.
type Replay struct {
	endpoint string
	agent    string
	claims   string // the node that requests name, where no certificate does
	client   *http.Client
}

// NewReplay makes a Replay to the server of the configuration.
func NewReplay(c *Config, version string) (*Replay, error) {
	if c.Networking.Endpoint == "" {
		return nil, &kind{errors.New("there is no server to send to: set endpoint in [networking]"), ErrConfig}
	}
	set, certified, err := currentSet(c)
	if err != nil {
		return nil, err
	}
	client, err := httpClient(&c.Networking, set.TLS)
	if err != nil {
		return nil, err
	}
	r := &Replay{endpoint: c.Networking.Endpoint, agent: "rea-agent/" + version, client: client}
	if certified == "" {
		r.claims, _ = nodeOf(c.Agent.NodeID, "", machineID)
	}
	return r, nil
}

// How often, and after how long at most, a letter is sent again to a server that
// has no room at the moment, as while the agent's own batch is on its way.
const (
	replayTries = 4
	replayPause = 5 * time.Second
)

// Send returns nil when the server keeps the letter. An error that is ErrRefused
// is about this letter; after any other the next one would fare the same.
func (r *Replay) Send(ctx context.Context, l Letter) error {
	if l.Damage != nil {
		return &kind{l.Damage, ErrRefused}
	}
	for try := 1; ; try++ {
		busy, err := r.post(ctx, l)
		if busy == 0 || try == replayTries {
			return err
		}
		t := time.NewTimer(min(busy, replayPause))
		select {
		case <-t.C:
		case <-ctx.Done():
			t.Stop()
			return ctx.Err()
		}
	}
}

// post sends the letter as a batch of one line. busy is how long to wait until
// it may be worth another try.
func (r *Replay) post(ctx context.Context, l Letter) (busy time.Duration, err error) {
	body := append(bytes.Clone(l.Line), '\n')
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, r.endpoint+wire.IngestPath, bytes.NewReader(body))
	if err != nil {
		return 0, err
	}
	req.Header.Set("User-Agent", r.agent)
	if r.claims != "" {
		wire.SetNode(req.Header, r.claims)
	}
	wire.Batch{
		Stream: l.Stream, First: l.Seq, Last: l.Seq, Schema: wire.Schema, Assigned: l.Seq,
		ID: fmt.Sprintf("%s-%d-%d", l.Stream[:8], l.Seq, l.Seq),
	}.SetHeader(req.Header)
	resp, err := r.client.Do(req)
	if err != nil {
		return 0, unreachable(err)
	}
	defer resp.Body.Close()
	return judge(resp, l.Seq)
}

// unreachable says why there was no answer.
func unreachable(err error) error {
	if u := (*url.Error)(nil); errors.As(err, &u) {
		err = u.Err // who reads it knows the endpoint
	}
	if text := identity.Explain(err); text != "" {
		return errors.New(text)
	}
	return err
}

// judge reads the answer to a letter with number seq.
func judge(resp *http.Response, seq uint64) (busy time.Duration, err error) {
	var a wire.Answer
	raw, err := io.ReadAll(io.LimitReader(resp.Body, 64<<10))
	if err == nil {
		err = json.Unmarshal(raw, &a)
	}
	status := resp.StatusCode
	if status == http.StatusOK && err != nil {
		return 0, fmt.Errorf("the answer 200 is not of a REA server: %w", err)
	}
	if status == http.StatusOK && a.Last >= seq {
		return 0, nil
	}
	said := fmt.Errorf("the server answered %s: %s", resp.Status, a.Error)
	switch status {
	case http.StatusOK:
		return 0, fmt.Errorf("the server keeps numbers up to %d only", a.Last)
	case http.StatusTooManyRequests, http.StatusServiceUnavailable:
		busy = time.Second
		if n, err := strconv.ParseUint(resp.Header.Get("Retry-After"), 10, 16); err == nil {
			busy = max(time.Millisecond, time.Duration(n)*time.Second)
		}
		return busy, said
	case http.StatusBadRequest, http.StatusConflict, http.StatusRequestEntityTooLarge, http.StatusUnprocessableEntity:
		return 0, &kind{said, ErrRefused}
	}
	return 0, said
}
