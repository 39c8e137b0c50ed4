package agent

import (
	"crypto/rand"
	"crypto/tls"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"net"
	"net/http"
	"net/url"
	"path/filepath"
	"syscall"
	"time"

	"github.com/rea-agent/rea/internal/collect/eventlog"
	"github.com/rea-agent/rea/internal/deadletter"
	"github.com/rea-agent/rea/internal/durable"
	"github.com/rea-agent/rea/internal/enroll"
	"github.com/rea-agent/rea/internal/identity"
	"github.com/rea-agent/rea/internal/ledger"
	"github.com/rea-agent/rea/internal/pipeline"
	"github.com/rea-agent/rea/internal/queue"
	"github.com/rea-agent/rea/internal/ship"
	"github.com/rea-agent/rea/internal/trust"
	"github.com/rea-agent/rea/internal/wire"
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
	lanes             []*lane
	letters           *deadletter.Box
	local             *local // nil with mode "none"
	handed            eventlog.Handed

	claims    string        // the node that requests name, where no certificate does; else ""
	trust     *trust.Keeper // nil without networking, and so are those below
	transport *transport
	renewer   *enroll.Renewer
}

// open opens all that events go to.
func (a *Agent) open() (*output, error) {
	c := &a.o.Config
	out := new(output)
	var certified string
	if c.Networking.Enabled {
		var err error
		if out.trust, certified, err = a.trust(); err != nil {
			return nil, err
		}
	}
	var origin string
	a.node, origin = nodeOf(c.Agent.NodeID, certified, machineID)
	a.o.Log.Debug("node id", "node", a.node, "origin", origin)
	if out.trust != nil && certified == "" {
		out.claims = a.node
		a.o.Log.Warn("this agent shows NO CERTIFICATE (tls.client_cert is not set): only a server with client_auth = \"optional\" takes its events, and there anybody can deliver in its name", "node", a.node)
	}

	err := a.openLocal(out)
	if err == nil && c.Networking.Enabled {
		err = a.openDelivery(out)
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
func (a *Agent) openDelivery(out *output) error {
	n := &a.o.Config.Networking
	client, err := httpClient(n, out.trust.Set().TLS)
	if err != nil {
		return err
	}
	out.transport = client.Transport.(*transport)
	out.renewer = a.renewer(out.trust, client)
	if out.letters, err = deadletter.Open(filepath.Join(n.QueueDir, lettersFolder), deadletter.Options{}); err != nil {
		return err
	}
	a.metrics.Func("rea_dead_letters", "Refused events that are kept for people to look at.", func() float64 {
		s, err := out.letters.Stats()
		if err != nil {
			return math.NaN()
		}
		return float64(s.Letters)
	})
	a.metrics.CounterFunc("rea_dead_letters_dropped_total", "Refused events that went to make room for newer ones.", func() float64 {
		s, err := out.letters.Stats()
		if err != nil {
			return math.NaN()
		}
		return float64(s.Dropped)
	})
	if followsEventLog(&a.o.Config) {
		out.handed = handedOver(filepath.Join(n.QueueDir, laneFolders[0]), a.o.Log)
	}
	evidence := n.QueueMaxBytes / evidenceShare
	for _, l := range []*lane{{name: "evidence", evidence: true}, {name: "metrics"}} {
		bytes := evidence
		if !l.evidence {
			bytes = n.QueueMaxBytes - evidence
		}
		q, err := queue.Open(queue.Options{
			Dir: filepath.Join(n.QueueDir, l.name), MaxBytes: bytes, MinFreeBytes: n.QueueMinFreeBytes, Metrics: a.metrics, Lane: l.name,
		})
		if err != nil {
			return fmt.Errorf("queue of %s: %w", l.name, ofFolder(err))
		}
		l.agent, l.renewed = a, make(chan struct{}, 1)
		l.queue.Store(q)
		out.lanes = append(out.lanes, l)
	}
	if err := a.openLedger(out.lanes[0].queue.Load()); err != nil {
		return ofFolder(err)
	}
	if err := a.adopt(out.lanes); err != nil {
		return err
	}
	instance := newInstance()
	var compressor *wire.Compressor
	if n.Compression != "none" {
		compressor = wire.NewDictionaryCompressor() // one for both lanes, for its memory
	}
	for _, l := range out.lanes {
		a.connect(l, client, out.claims, instance, compressor)
		if l.evidence {
			out.evidence = l.writer
		} else {
			out.metrics = l.writer
		}
	}
	return nil
}

// ofFolder says of an error of the queue's folder what kind it is, and what to do
// where the files are those of another account, under which the agent ran before.
func ofFolder(err error) error {
	var system syscall.Errno
	switch {
	case errors.Is(err, durable.ErrLocked):
		return &kind{err, ErrBusy}
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("%w: what lies in the queue's folder must belong to the account that the agent runs as", err)
	case errors.As(err, &system):
		return &kind{err, ErrOutput}
	}
	return err
}

// ledgerFile remembers what is missing until the server knows, in the queue's folder.
const ledgerFile = "missing"

// openLedger opens the ledger; q is the queue of evidence. If it is damaged the
// agent starts even so: most of what it says lies in the queue as gap events.
func (a *Agent) openLedger(q *queue.Queue) (err error) {
	a.ledger, err = ledger.Open(filepath.Join(a.o.Config.Networking.QueueDir, ledgerFile), q.Stream().String(), q.Next())
	switch {
	case a.ledger == nil:
		return err
	case err != nil:
		a.o.Log.Error("some of what was missing before this start may never be declared", "error", err.Error())
	}
	a.metrics.Func("rea_undeclared_events", "Events that are lost and that no gap event tells of yet.", func() float64 { return float64(a.ledger.Untold()) })
	return nil
}

// lettersFolder is where refused events are kept, in the queue's folder.
const lettersFolder = "dead-letters"

// connect gives the lane its writer and its sender; claims is the node that it names
// where no certificate does.
func (a *Agent) connect(l *lane, client *http.Client, claims, instance string, compressor *wire.Compressor) {
	n := &a.o.Config.Networking
	linger, interval := metricsLinger, a.o.Config.Agent.BatchInterval
	if l.evidence {
		linger, interval = evidenceLinger, 0
	}
	q := l.queue.Load()
	l.writer = ship.NewWriter(ship.WriterOptions{Queue: q, First: l.first(), Compressor: compressor, Linger: linger})
	l.sender = ship.NewSender(ship.SenderOptions{
		Queue: q, Lane: l.name, Endpoint: n.Endpoint, Client: client, UserAgent: "rea-agent/" + a.o.Version, Interval: interval,
		Node: claims, Instance: instance, Assigned: l.writer.Assigned,
		Backoff: ship.Backoff{Min: n.Backoff.Min, Max: n.Backoff.Max}, RetryBudget: n.RetryBudget,
		Explain: identity.Explain, Account: l, Set: a.metrics, Log: a.o.Log,
	})
	a.metrics.Func("rea_sender_lag_events", "Events that have numbers and are not acknowledged.", func() float64 {
		return float64(uint64(l.writer.Waiting()) + l.queue.Load().Stats().Events)
	}, "lane", l.name)
	a.metrics.Counter("rea_dead_letters_total", "Events that the server refused, kept for people to look at.", "lane", l.name)
}

// newInstance returns a random id of this process.
func newInstance() string {
	var id [16]byte
	_, _ = rand.Read(id[:]) // never fails: it ends the program instead
	return hex.EncodeToString(id[:])
}

// httpClient returns a client whose transport is a *transport.
func httpClient(n *NetworkingSection, tlsConfig *tls.Config) (*http.Client, error) {
	proxy := http.ProxyFromEnvironment
	if n.Proxy != "" {
		u, err := url.Parse(n.Proxy)
		if err != nil {
			return nil, fmt.Errorf("networking.proxy: %w", err)
		}
		proxy = http.ProxyURL(u)
	}
	t := &transport{make: func(c *tls.Config) *http.Transport { return httpTransport(n, proxy, c) }}
	t.use(tlsConfig)
	return &http.Client{
		Transport: t,
		Timeout:   n.Timeout,
		CheckRedirect: func(*http.Request, []*http.Request) error {
			return http.ErrUseLastResponse // a batch goes where the operator said, nowhere else
		},
	}, nil
}

func httpTransport(n *NetworkingSection, proxy func(*http.Request) (*url.URL, error), tlsConfig *tls.Config) *http.Transport {
	t := &http.Transport{
		Proxy:                  proxy,
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
	return t
}

// close closes what open opened, in the order of the flow.
func (o *output) close() error {
	var errs []error
	if o.local != nil {
		errs = append(errs, o.local.Close())
	}
	for _, l := range o.lanes {
		if err := l.queue.Load().Close(); err != nil {
			errs = append(errs, fmt.Errorf("close queue of %s: %w", l.name, err))
		}
	}
	return errors.Join(errs...)
}
