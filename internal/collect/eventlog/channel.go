package eventlog

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime/debug"
	"strings"
	"time"

	"github.com/rea-agent/rea/internal/collect"
	"github.com/rea-agent/rea/internal/event"
	"github.com/rea-agent/rea/internal/metric"
)

// The states of a channel, beside those of a source.
const (
	stateLagging  = "lagging"  // more comes than is read, or than may be
	stateAbsent   = "absent"   // there is no such channel to be read
	stateDisabled = "disabled" // it is there and takes no records
	stateDenied   = "denied"   // the agent's account may not read it
)

const (
	fetch      = 30        // records asked for at once; EvtNext fails at much more
	batchMost  = 256       // events handed over at once
	batchBytes = 512 << 10 // of XML, after which no more are asked for

	retryLeast  = time.Second // how long a channel that fails is left alone
	retryMost   = time.Minute
	deniedEvery = 5 * time.Minute
	reopenMost  = 20              // times in a row without a record
	boundMost   = 100             // records in a row that cannot be fetched even alone
	lastWords   = 2 * time.Second // what is being handed over when the source ends may take so long
)

var (
	errReopen  = errors.New("the subscription has to be made anew") // from the bookmark; nothing is wrong
	errDrained = errors.New("all that there is was read")
)

// A channel is the reader of one channel. Its fields belong to its goroutine.
//
// Where it stands is kept three times: next is behind what was fetched, position
// behind what was handed over and taken, the cursors have what was written down.
type channel struct {
	s        *Source
	name     string
	named    bool // in the configuration, and not only meant by a pattern
	settings settings
	parser   Parser
	emitting context.Context // ends a little later than the source

	known    bool     // there is a position
	late     bool     // the channel came after the source had begun, so all that is in it is new
	position position // everything up to here was handed over and taken
	next     uint64   // the id of the record that is to be fetched next; 0 where not known
	lost     bool     // the bookmark leads nowhere

	// Of one subscription:
	sub      subscription
	first    bool // no record of it was looked at
	skipping bool // records up to position were handed over before
	moved    bool // the bookmark was put further since the last batch
	bound    int  // records that could not be fetched, since the last one that could
	dropped  *event.Missing
	held     position // before those that were dropped
	before   *string  // the bookmark before the records that were fetched, if it was moved to tell the id of the first

	size     int  // records to ask for at once
	reopened int  // times since the last record
	worked   bool // since the last failure

	batch    batch
	limit    limit
	created  time.Time // of the newest record
	behind   time.Time // since when it was not read to its end; zero where it was
	looked   time.Time // when the log was last looked at
	disabled bool      // it was then
	state    string
	backlog  collect.Backlog
	metrics  channelMetrics
}

// A batch is what is handed over at once.
type batch struct {
	records []*Record // reused; events borrow the first taken
	taken   int
	events  []event.Event
	bytes   int // of XML
}

type channelMetrics struct {
	events, errors, repeated *metric.Counter
	lag, lagRecords          *metric.Gauge
}

// channel returns the reader of a channel.
func (s *Source) channel(name string, named, late bool) *channel {
	c := &channel{s: s, name: name, named: named, settings: s.cfg.settings(name), size: fetch, late: late}
	c.parser.KeepXML = c.settings.XML
	c.limit.rps = c.settings.RPS
	c.position, c.known = s.cursors.get(name)
	c.lost = c.position.Lost
	m := s.cfg.Metrics
	c.metrics = channelMetrics{
		events:     m.Counter("rea_eventlog_events_total", "Records of the event log that were handed over.", "channel", name),
		errors:     m.Counter("rea_eventlog_errors_total", "Times that a channel of the event log could not be read.", "channel", name),
		repeated:   m.Counter("rea_eventlog_repeated_total", "Records that were read again, since a bookmark was lost, and left out.", "channel", name),
		lag:        m.Gauge("rea_eventlog_lag_seconds", "How old the newest record is that was handed over, while there are newer ones.", "channel", name),
		lagRecords: m.Gauge("rea_eventlog_lag_records", "Records that are in the log and were not handed over.", "channel", name),
	}
	return c
}

// run follows the channel until ctx ends, through whatever happens to it.
func (c *channel) run(ctx context.Context) {
	var cancel context.CancelFunc
	c.emitting, cancel = context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	defer context.AfterFunc(ctx, func() { time.AfterFunc(lastWords, cancel) })()
	defer c.leave()
	for pause := retryLeast; ; {
		err := c.guarded(ctx)
		if ctx.Err() != nil {
			return
		}
		if (errors.Is(err, errReopen) || isLost(err)) && c.reopened < reopenMost {
			c.reopened++
			continue
		}
		if errors.Is(err, errDirect) && !c.named {
			return // a pattern takes what can be read
		}
		c.metrics.errors.Inc()
		if c.worked {
			pause, c.worked = retryLeast, false
		}
		state, wait := collect.Failing, pause
		switch {
		case errors.Is(err, errDenied):
			state, wait = stateDenied, deniedEvery
		case errors.Is(err, errNoChannel), errors.Is(err, errDirect):
			state, c.late = stateAbsent, true
		}
		pause = min(2*pause, retryMost)
		c.tell(ctx, state, err)
		sleep(ctx, wait/2+rand.N(wait/2))
	}
}

func sleep(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}

// tell says how the channel fares, when that changes.
func (c *channel) tell(ctx context.Context, state string, err error) {
	if state == c.state && err == nil {
		return
	}
	if c.state != "" && c.state != state {
		c.stateGauge(c.state).Set(0)
	}
	c.stateGauge(state).Set(1)
	c.state = state
	c.s.tell(ctx, c.name, state, err)
}

// leave takes back what the metrics say of a channel that is not read any more.
func (c *channel) leave() {
	if c.state != "" {
		c.stateGauge(c.state).Set(0)
	}
	c.metrics.lag.Set(0)
	c.metrics.lagRecords.Set(0)
}

func (c *channel) stateGauge(state string) *metric.Gauge {
	return c.s.cfg.Metrics.Gauge("rea_eventlog_channel_state", "Whether a channel of the event log is in this state: 1 or 0. Those that it never was in are absent; a channel that is not read any more is in none.", "channel", c.name, "state", state)
}

// guarded is follow, with a panic turned into an error.
func (c *channel) guarded(ctx context.Context) (err error) {
	defer func() {
		if v := recover(); v != nil {
			err = fmt.Errorf("panic: %v\n%s", v, debug.Stack())
		}
	}()
	return c.follow(ctx)
}

// follow reads the channel from its position until something goes wrong.
func (c *channel) follow(ctx context.Context) (err error) {
	if err := c.subscribe(ctx); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, c.sub.close()) }()
	c.look()
	for {
		if err := c.drain(ctx); err != nil {
			return err
		}
		wait := pollLeast + rand.N(pollMost-pollLeast)
		if c.dropped != nil {
			wait = min(wait, c.limit.rest(time.Now()))
		}
		poll := time.NewTimer(wait)
		select {
		case <-c.sub.ready():
		case <-poll.C:
		case <-ctx.Done():
		}
		poll.Stop()
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if time.Since(c.looked) >= lookEvery {
			c.look()
		}
	}
}

// subscribe begins to read behind the position. Where there is none yet it is
// decided, and written down before anything is read, so that a crash does not
// decide again. Where it leads nowhere any more all that is in the log is read,
// and what was handed over is left out: never is anything passed over.
func (c *channel) subscribe(ctx context.Context) error {
	if !c.known {
		if err := c.begin(ctx); err != nil {
			return err
		}
	}
	bookmark := c.position.Bookmark
	sub, err := c.s.system.subscribe(c.name, c.settings.XPath, bookmark)
	if err != nil && bookmark != "" && isLost(err) {
		c.lost = true
		sub, err = c.s.system.subscribe(c.name, c.settings.XPath, "")
	}
	if err != nil {
		return fmt.Errorf("subscribe: %w", err)
	}
	c.sub, c.next, c.first, c.skipping = sub, c.position.Next, true, true
	c.moved, c.bound, c.dropped = false, 0, nil
	c.batch.forget()
	return nil
}

// begin decides where to begin.
func (c *channel) begin(ctx context.Context) error {
	if c.settings.Oldest || c.late {
		info, err := c.s.system.info(c.name)
		if err == nil && info.count > 0 {
			c.position.Next = info.oldest // so that it is seen if that goes before it is read
		}
	} else {
		bookmark, err := c.s.system.end(c.name)
		if err != nil {
			return fmt.Errorf("find the newest record: %w", err)
		}
		c.position = behind(bookmark)
	}
	c.known = true
	c.s.cursors.set(c.name, c.position)
	c.s.save(ctx)
	return nil
}

// behind returns the position behind the record of a bookmark.
func behind(bookmark string) position {
	p := position{Bookmark: bookmark}
	if id := recordOf(bookmark); id != 0 {
		p.Next = id + 1
	}
	return p
}

// look sees whether the channel takes records, and how many are not read. That it
// cannot be told is no reason not to read.
func (c *channel) look() {
	c.looked = time.Now()
	info, err := c.s.system.info(c.name)
	if err != nil {
		return
	}
	c.disabled = !info.enabled
	if !c.behind.IsZero() && info.count > 0 {
		c.backlog.Records = info.newest() + 1 - min(info.newest()+1, max(info.oldest, c.position.Next))
	}
	c.showBacklog()
}

// showBacklog tells how far behind the channel is.
func (c *channel) showBacklog() {
	c.metrics.lag.Set(c.backlog.Lag.Seconds())
	c.metrics.lagRecords.Set(float64(c.backlog.Records))
	c.s.watch.Behind(c.name, c.backlog)
}

// works says that the channel can be read.
func (c *channel) works(ctx context.Context) {
	c.worked = true
	switch {
	case c.disabled && c.named:
		c.tell(ctx, stateDisabled, errors.New("the channel is disabled, and takes no records"))
	case c.disabled:
		c.tell(ctx, stateDisabled, nil)
	case !c.behind.IsZero() && time.Since(c.behind) >= lagAfter:
		c.tell(ctx, stateLagging, nil)
	default:
		c.tell(ctx, collect.OK, nil)
	}
}

// drain reads until there is no more, and hands over what it reads.
func (c *channel) drain(ctx context.Context) error {
	for {
		if err := c.wait(ctx); err != nil {
			return err
		}
		failed := c.gather()
		if err := c.deliver(ctx); err != nil {
			return errors.Join(failed, err)
		}
		switch {
		case failed == nil:
			c.lags(ctx)
		case errors.Is(failed, errDrained):
			c.caughtUp(ctx)
			return nil
		default:
			return failed
		}
	}
}

// wait waits, where records are deferred, until more may be read.
func (c *channel) wait(ctx context.Context) error {
	for !c.settings.Drop && c.limit.left(time.Now()) == 0 && ctx.Err() == nil {
		c.lags(ctx)
		sleep(ctx, c.limit.rest(time.Now()))
	}
	return ctx.Err()
}

// lags notes that there may be more than was read.
func (c *channel) lags(ctx context.Context) {
	now := time.Now()
	if c.behind.IsZero() {
		c.behind = now
	}
	if !c.created.IsZero() {
		c.backlog.Lag = max(0, now.Sub(c.created))
	}
	if now.Sub(c.behind) >= lagAfter && now.Sub(c.looked) >= lagAfter {
		c.look()
	}
	c.showBacklog()
	c.works(ctx)
}

func (c *channel) caughtUp(ctx context.Context) {
	c.behind = time.Time{}
	c.backlog.Lag, c.backlog.Records = 0, 0
	c.showBacklog()
	c.works(ctx)
	c.batch.shrink()
}

// gather fetches records until a batch is full, none is left (errDrained) or
// something is wrong. What it fetched before that is in the batch.
func (c *channel) gather() error {
	c.closeWindow()
	for c.batch.taken < batchMost && c.batch.bytes < batchBytes {
		most := min(c.size, batchMost-c.batch.taken)
		if !c.settings.Drop {
			if most = min(most, c.limit.left(time.Now())); most == 0 {
				return nil
			}
		}
		n, err := c.sub.next(most)
		switch {
		case errors.Is(err, errBound):
			if err := c.tooMuch(); err != nil {
				return err
			}
			continue
		case errors.Is(err, errNoMore), errors.Is(err, errTimeout):
			return errDrained
		case err != nil:
			return fmt.Errorf("fetch records: %w", err)
		}
		c.reopened = 0
		if err := c.takeAll(n); err != nil {
			return err
		}
		if n == most {
			c.size = min(c.size+1, fetch)
		}
	}
	return nil
}

// tooMuch deals with records that are too much for one call, which has moved past
// them all the same: they are fetched again, fewer at once. One that cannot be
// fetched alone is passed over, and becomes a gap before the next.
func (c *channel) tooMuch() error {
	if c.size > 1 {
		c.size /= 2
		return errReopen
	}
	if c.bound++; c.bound > boundMost {
		return fmt.Errorf("%d records in a row: %w", c.bound, errBound)
	}
	return nil
}

// takeAll takes the n records that were fetched, and puts the bookmark behind them.
// If that fails the whole batch is forgotten: it is fetched again.
func (c *channel) takeAll(n int) (err error) {
	c.before = nil
	for i := 0; i < n && err == nil; i++ {
		err = c.take(i)
	}
	if err == nil {
		err = c.mark(n - 1)
	}
	if err != nil {
		c.batch.forget()
		c.moved = false
	}
	return err
}

func (c *channel) mark(i int) error {
	if err := c.sub.mark(i); err != nil {
		return fmt.Errorf("put the bookmark: %w", err)
	}
	c.moved = true
	return nil
}

// take makes an event of record i, unless it was handed over before or is too
// much for the rate.
func (c *channel) take(i int) error {
	r := c.batch.free()
	xml, err := c.sub.xml(i)
	if err != nil {
		c.parser.Parse(nil, r)
		r.Channel, r.errors = c.name, append(r.errors[:0], "xml: render: "+err.Error())
	} else {
		c.parser.Parse(xml, r)
	}
	id, err := c.recordID(i, r)
	if err != nil {
		return err
	}
	before, now := c.next, time.Now()
	if wanted, err := c.place(id, r); err != nil || !wanted {
		if err == nil {
			c.metrics.repeated.Inc()
		}
		return err
	}
	if c.settings.Drop && c.limit.left(now) == 0 {
		return c.drop(i, before, id, r)
	}
	c.closeWindow()
	c.limit.take(now)
	if c.settings.Message && r.Message == "" {
		if r.Message, err = c.sub.message(i, r.Provider); err != nil {
			r.errors = append(r.errors, "message: "+err.Error())
		}
	}
	c.created = r.Created
	c.batch.taken++
	c.batch.bytes += len(xml)
	c.batch.events = append(c.batch.events, r.Event(now))
	return nil
}

// recordID returns the id of record i in this log. One that was forwarded says in
// its XML which it was in the log that it came from; of that the bookmark knows
// better.
func (c *channel) recordID(i int, r *Record) (uint64, error) {
	if r.RecordID.Known && strings.EqualFold(r.Channel, c.name) {
		return r.RecordID.V, nil
	}
	if i == 0 && c.settings.Drop {
		before, err := c.sub.bookmark()
		if err != nil {
			return 0, fmt.Errorf("render the bookmark: %w", err)
		}
		c.before = &before
	}
	if err := c.mark(i); err != nil {
		return 0, err
	}
	bookmark, err := c.sub.bookmark()
	if err != nil {
		return 0, fmt.Errorf("render the bookmark of a record: %w", err)
	}
	id := recordOf(bookmark)
	if strings.EqualFold(r.Channel, c.name) {
		r.RecordID = event.Known(id)
	} else {
		r.from, r.fromID = c.name, id
	}
	return id, nil
}

// drop counts a record that is over the rate. What came before it is safe to be
// handed over; the position stays there until the gap event is.
func (c *channel) drop(i int, before, id uint64, r *Record) error {
	if c.dropped == nil {
		bookmark, err := c.bookmarkBefore(i)
		if err != nil {
			return err
		}
		c.held = position{Bookmark: bookmark, Next: before}
		c.dropped = c.missing("rate_limited", 0, r)
		c.dropped.FirstRecord, c.dropped.Since = id, r.Created
	}
	c.dropped.LastRecord, c.dropped.Until = id, r.Created
	c.dropped.Count++
	return nil
}

// bookmarkBefore returns the bookmark of the record before i.
func (c *channel) bookmarkBefore(i int) (string, error) {
	switch {
	case i > 0:
		if err := c.mark(i - 1); err != nil {
			return "", err
		}
	case c.before != nil:
		return *c.before, nil
	}
	bookmark, err := c.sub.bookmark()
	if err != nil {
		return "", fmt.Errorf("render the bookmark: %w", err)
	}
	return bookmark, nil
}

// closeWindow tells what was dropped, when the second is over in which that was.
func (c *channel) closeWindow() {
	if c.dropped != nil && c.limit.left(time.Now()) > 0 {
		c.tellDropped()
	}
}

func (c *channel) tellDropped() {
	m := c.dropped
	c.dropped = nil
	c.gap(m) // its ids may have holes where there is a filter
}

// gap puts a gap event into the batch, behind that of what was dropped before: the
// last event that is kept tells up to where all is told.
func (c *channel) gap(m *event.Missing) {
	if c.dropped != nil {
		c.tellDropped()
	}
	c.batch.events = append(c.batch.events, event.Event{Time: time.Now(), Kind: event.Gap, Body: m})
}

// deliver hands the batch over, and then moves the position behind it.
func (c *channel) deliver(ctx context.Context) error {
	defer c.batch.forget()
	if !c.moved && len(c.batch.events) == 0 {
		return nil
	}
	to := c.held
	if c.dropped == nil {
		bookmark, err := c.sub.bookmark()
		if err != nil {
			return fmt.Errorf("render the bookmark: %w", err)
		}
		to = position{Bookmark: bookmark, Next: c.next}
	}
	if len(c.batch.events) > 0 {
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := c.s.watch.Emit(c.emitting, c.batch.events...); err != nil {
			return err
		}
		c.count()
		c.s.watch.Up(ctx)
	}
	c.moved, c.lost, c.position = false, false, to
	c.s.cursors.set(c.name, c.position)
	return nil
}

// count counts what was handed over.
func (c *channel) count() {
	c.metrics.events.Add(uint64(c.batch.taken))
	for _, e := range c.batch.events {
		if m, ok := e.Body.(*event.Missing); ok {
			c.s.cfg.Metrics.Counter("rea_eventlog_missing_records_total", "Records of the event log that are missing, each told in a gap event; an upper bound.",
				"channel", c.name, "cause", m.Cause).Add(m.Count)
			c.backlog.Missing += m.Count
		}
	}
}

// free returns a record that no event borrows.
func (b *batch) free() *Record {
	if b.taken == len(b.records) {
		b.records = append(b.records, new(Record))
	}
	return b.records[b.taken]
}

func (b *batch) forget() {
	clear(b.events)
	b.taken, b.bytes, b.events = 0, 0, b.events[:0]
}

// shrink gives back what a burst needed.
func (b *batch) shrink() {
	if len(b.records) > fetch {
		*b = batch{}
	}
}

// A limit is how many records may be taken in a second.
type limit struct {
	rps  int
	from time.Time // when the second began
	used int
}

func (l *limit) over(now time.Time) bool { return now.Sub(l.from) >= time.Second || now.Before(l.from) }

// left returns how many may be taken now.
func (l *limit) left(now time.Time) int {
	if l.over(now) {
		return l.rps
	}
	return l.rps - l.used
}

func (l *limit) take(now time.Time) {
	if l.over(now) {
		l.from, l.used = now, 0
	}
	l.used++
}

// rest returns how long the second still lasts.
func (l *limit) rest(now time.Time) time.Duration {
	return max(time.Millisecond, l.from.Add(time.Second).Sub(now))
}
