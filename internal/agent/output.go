package agent

import (
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"path/filepath"
	"time"

	"github.com/rea-agent/rea/internal/durable"
	"github.com/rea-agent/rea/internal/event"
	"github.com/rea-agent/rea/internal/identity"
	"github.com/rea-agent/rea/internal/pipeline"
	"github.com/rea-agent/rea/internal/queue"
	"github.com/rea-agent/rea/internal/ship"
)

// evidenceLinger is how long a line that a source waits for waits for company.
const evidenceLinger = 5 * time.Millisecond

// metricsLinger is how long a measurement waits for the others of the same
// moment. It is short: a kill costs what waits, and one burst of work wakes the
// machine less than two. How often batches are sent is batch_interval_ms.
const metricsLinger = 20 * time.Millisecond

// evidenceShare is the part of queue_max_bytes that belongs to evidence: 1/4.
const evidenceShare = 4

// An output is where events go: keepers, and copies of what they keep.
type output struct {
	metrics, evidence pipeline.Keeper
	tees              []pipeline.Tee
	lanes             []lane
	local             *local // nil with mode "none"
}

// A lane is a queue on disk with its name, and who fills and empties it.
type lane struct {
	name   string
	queue  *queue.Queue
	writer *ship.Writer
	sender *ship.Sender
}

// open opens all that events go to.
func (a *Agent) open() (*output, error) {
	c := &a.o.Config
	var tlsConfig *tls.Config
	var certified string
	if c.Networking.Enabled {
		var err error
		if tlsConfig, certified, err = clientTLS(c); err != nil {
			return nil, err
		}
	}
	var origin string
	a.node, origin = nodeOf(c.Agent.NodeID, certified, machineID)
	a.warnUnverified()
	a.o.Log.Debug("node id", "node", a.node, "origin", origin)

	out := new(output)
	err := a.openLocal(out)
	if err == nil && c.Networking.Enabled {
		err = a.openDelivery(out, tlsConfig)
	} else if err == nil {
		k := pipeline.SinkKeeper(out.local)
		out.metrics, out.evidence = k, k
	}
	if err != nil {
		return nil, errors.Join(err, out.close())
	}
	return out, nil
}

// openDelivery opens the queues with a writer and a sender each.
func (a *Agent) openDelivery(out *output, tlsConfig *tls.Config) error {
	n := &a.o.Config.Networking
	client, err := httpClient(n, tlsConfig)
	if err != nil {
		return err
	}
	evidence := n.QueueMaxBytes / evidenceShare
	interval := a.o.Config.Agent.BatchInterval
	for _, l := range []struct {
		name     string
		bytes    int64
		linger   time.Duration
		interval time.Duration
		keeper   *pipeline.Keeper
	}{
		{"evidence", evidence, evidenceLinger, 0, &out.evidence},
		{"metrics", n.QueueMaxBytes - evidence, metricsLinger, interval, &out.metrics},
	} {
		q, err := queue.Open(queue.Options{
			Dir: filepath.Join(n.QueueDir, l.name), MaxBytes: l.bytes, MinFreeBytes: n.QueueMinFreeBytes, Metrics: a.metrics, Lane: l.name,
		})
		if err != nil {
			err = fmt.Errorf("queue of %s: %w", l.name, err)
			if errors.Is(err, durable.ErrLocked) {
				err = &kind{err, ErrBusy}
			}
			return err
		}
		w := ship.NewWriter(ship.WriterOptions{Queue: q, Compress: n.Compression == "zstd", Linger: l.linger, Lost: a.lost(q)})
		*l.keeper = w
		out.lanes = append(out.lanes, lane{l.name, q, w, ship.NewSender(ship.SenderOptions{
			Queue: q, Lane: l.name, Endpoint: n.Endpoint, Client: client, UserAgent: "rea-agent/" + a.o.Version, Interval: l.interval,
			Backoff: ship.Backoff{Min: n.Backoff.Min, Max: n.Backoff.Max}, RetryBudget: n.RetryBudget,
			Explain: identity.Explain, Set: a.metrics, Log: a.o.Log,
		})})
	}
	return nil
}

// lost declares what the queue gave up.
func (a *Agent) lost(q *queue.Queue) func(queue.Loss) {
	return func(l queue.Loss) {
		a.pipeline.Lost(pipeline.Queue, event.Missing{
			Cause: l.Cause, Stream: q.Stream().String(), First: l.First, Last: l.Last, Count: l.Count, Since: l.Since, Until: l.Until,
		}, errors.New("the queue gave them up"))
	}
}

func httpClient(n *NetworkingSection, tlsConfig *tls.Config) (*http.Client, error) {
	t := &http.Transport{
		DialContext:            (&net.Dialer{Timeout: n.Timeout}).DialContext,
		TLSClientConfig:        tlsConfig,
		TLSHandshakeTimeout:    n.Timeout,
		ResponseHeaderTimeout:  n.Timeout,
		IdleConnTimeout:        2 * time.Minute,
		MaxIdleConnsPerHost:    2, // one a lane
		DisableCompression:     true,
		MaxResponseHeaderBytes: 64 << 10, // whatever answers there
		WriteBufferSize:        16 << 10,
		ReadBufferSize:         4 << 10,
	}
	t.Protocols = new(http.Protocols)
	t.Protocols.SetHTTP1(true)
	if n.Proxy != "" {
		proxy, err := url.Parse(n.Proxy)
		if err != nil {
			return nil, fmt.Errorf("networking.proxy: %w", err)
		}
		t.Proxy = http.ProxyURL(proxy)
	}
	return &http.Client{
		Transport: t,
		Timeout:   n.Timeout,
		CheckRedirect: func(*http.Request, []*http.Request) error {
			return http.ErrUseLastResponse // a batch goes where the operator said, nowhere else
		},
	}, nil
}

// close closes what open opened, in the order of the flow.
func (o *output) close() error {
	var errs []error
	if o.local != nil {
		errs = append(errs, o.local.Close())
	}
	for _, l := range o.lanes {
		if err := l.queue.Close(); err != nil {
			errs = append(errs, fmt.Errorf("close queue of %s: %w", l.name, err))
		}
	}
	return errors.Join(errs...)
}
