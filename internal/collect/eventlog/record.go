package eventlog

import (
	"strings"
	"time"

	"github.com/rea-agent/rea/internal/event"
)

// A Record is one event of the log, and the body of an eventlog event. What it
// says of the event's own data are texts under the names that its provider gave
// them; nothing is taken for a number or looked up, SIDs stay SIDs.
type Record struct {
	Provider, ProviderGUID, SourceName string
	EventID, Qualifiers, Version       event.Maybe[uint64]
	Level, Task, Opcode                event.Maybe[uint64]
	Keywords                           string // 64 bits in hexadecimal
	Created                            time.Time
	RecordID                           event.Maybe[uint64]
	ActivityID, RelatedActivityID      string
	ProcessID, ThreadID                event.Maybe[uint64]
	Channel, Computer, UserID          string
	DataName                           string // of EventData: what its provider calls it
	Binary                             string // in hexadecimal
	Message                            string // in words, where it was asked for or came along
	Culture                            string // of the words, as those below
	LevelName, TaskName, OpcodeName    string
	ChannelName, ProviderName          string

	keywordNames  []span
	from          string // the channel that it was read from, where that is another
	fromID        uint64 // and its number there
	nodes         []node
	xml, resolved string // the spans of nodes are of both
	keepXML       bool
	broken        bool // the XML is not what it should be
	errors        []string
}

// text returns the text of a span.
func (r *Record) text(t span) string {
	if n := len(r.xml); t.start >= n {
		return r.resolved[t.start-n : t.end-n]
	}
	return r.xml[t.start:t.end]
}

// take fills in the members that are known by name.
func (r *Record) take(f *fields) {
	r.Provider, r.ProviderGUID, r.SourceName = r.text(f.provider), r.text(f.guid), r.text(f.source)
	r.EventID, r.Qualifiers = r.known("event_id", f.id), r.known("qualifiers", f.qualifiers)
	r.Version, r.Level = r.known("version", f.version), r.known("level", f.level)
	r.Task, r.Opcode = r.known("task", f.task), r.known("opcode", f.opcode)
	r.Keywords = r.text(f.keywords)
	r.RecordID = r.known("record_id", f.record)
	r.ActivityID, r.RelatedActivityID = r.text(f.activity), r.text(f.related)
	r.ProcessID, r.ThreadID = r.known("process_id", f.pid), r.known("thread_id", f.tid)
	r.Channel, r.Computer, r.UserID = r.text(f.channel), r.text(f.computer), r.text(f.user)
	r.DataName, r.Binary = r.text(f.dataName), r.text(f.binary)
	r.Message, r.Culture = r.text(f.message), r.text(f.culture)
	r.LevelName, r.TaskName, r.OpcodeName = r.text(f.levelName), r.text(f.taskName), r.text(f.opcodeName)
	r.ChannelName, r.ProviderName, r.keywordNames = r.text(f.channelName), r.text(f.providerName), f.keywordNames
	if f.created.empty() {
		return
	}
	created, err := instant(r.text(f.created))
	if err != nil {
		r.errors = append(r.errors, "time: "+err.Error())
		return
	}
	r.Created = created
}

// known reads a number of System; what is no number is noted.
func (r *Record) known(field string, t span) event.Maybe[uint64] {
	if t.empty() {
		return event.Maybe[uint64]{}
	}
	n, err := number(r.text(t))
	if err != nil {
		r.errors = append(r.errors, field+": "+err.Error())
		return event.Maybe[uint64]{}
	}
	return event.Known(n)
}

// Event returns the event of which r is the body, read at that time.
func (r *Record) Event(observed time.Time) event.Event {
	return event.Event{Time: r.Created, Observed: observed, Kind: event.EventLog, Body: r, Errors: r.errors}
}

// Encode writes the members of an eventlog event.
func (r *Record) Encode(e *event.Encoder) {
	e.String("channel", r.Channel)
	e.MaybeUint("record_id", r.RecordID)
	if r.from != "" {
		e.Open("read_from")
		e.String("channel", r.from)
		e.Uint("record_id", r.fromID)
		e.Close()
	}
	e.String("provider", r.Provider)
	e.String("provider_guid", r.ProviderGUID)
	e.String("source_name", r.SourceName)
	e.MaybeUint("event_id", r.EventID)
	e.MaybeUint("qualifiers", r.Qualifiers)
	e.MaybeUint("version", r.Version)
	e.MaybeUint("level", r.Level)
	e.MaybeUint("task", r.Task)
	e.MaybeUint("opcode", r.Opcode)
	e.String("keywords", r.Keywords)
	e.String("computer", r.Computer)
	e.Sensitive("user_id", event.Account, r.UserID)
	e.MaybeUint("process_id", r.ProcessID)
	e.MaybeUint("thread_id", r.ThreadID)
	e.String("activity_id", r.ActivityID)
	e.String("related_activity_id", r.RelatedActivityID)
	e.String("data_name", r.DataName)
	r.object(e, "event_data", &r.nodes[rootData])
	r.unnamed(e)
	r.object(e, "user_data", &r.nodes[rootUser])
	r.object(e, "other", &r.nodes[rootOther])
	e.Sensitive("binary", event.Text, r.Binary)
	if r.Message != "" {
		e.Sensitive("message", event.Text, r.masked(e))
	}
	r.rendering(e)
	if r.keepXML || r.broken {
		e.Sensitive("xml", event.Command, r.xml) // names, homes and command lines can stand anywhere in it
	}
}

// object writes the children of n as an object, if it has any.
func (r *Record) object(e *event.Encoder, name string, n *node) {
	if n.first == 0 {
		return
	}
	e.Open(name)
	r.members(e, n)
	e.Close()
}

func (r *Record) members(e *event.Encoder, n *node) {
	for i := n.first; i != 0; i = r.nodes[i].next {
		c := &r.nodes[i]
		name := r.text(c.name)
		switch {
		case c.again:
		case c.same != 0:
			r.list(e, name, i)
		case c.first == 0:
			e.Foreign(name, name, event.Text, r.text(c.value))
		default:
			e.Open(name)
			r.element(e, name, c)
			e.Close()
		}
	}
}

// element writes what stands in an element that has others or attributes.
func (r *Record) element(e *event.Encoder, name string, n *node) {
	if !n.value.empty() {
		e.Foreign("#text", name, event.Text, r.text(n.value))
	}
	r.members(e, n)
}

// list writes the nodes that have one name.
func (r *Record) list(e *event.Encoder, name string, i int32) {
	e.OpenList(name)
	for ; i != 0; i = r.nodes[i].same {
		r.item(e, name, &r.nodes[i])
	}
	e.CloseList()
}

func (r *Record) item(e *event.Encoder, name string, n *node) {
	if n.first == 0 {
		e.Item(name, event.Text, r.text(n.value))
		return
	}
	e.OpenItem()
	r.element(e, name, n)
	e.CloseItem()
}

// unnamed writes the data that have no names, in their order.
func (r *Record) unnamed(e *event.Encoder) {
	i := r.nodes[rootUnnamed].first
	if i == 0 {
		return
	}
	e.OpenList("data")
	for ; i != 0; i = r.nodes[i].next {
		r.item(e, "data", &r.nodes[i])
	}
	e.CloseList()
}

func (r *Record) rendering(e *event.Encoder) {
	if r.Culture == "" && r.LevelName == "" && r.TaskName == "" && r.OpcodeName == "" && r.ChannelName == "" && r.ProviderName == "" && len(r.keywordNames) == 0 {
		return
	}
	e.Open("rendering")
	e.String("culture", r.Culture)
	e.String("level", r.LevelName)
	e.String("task", r.TaskName)
	e.String("opcode", r.OpcodeName)
	e.String("channel", r.ChannelName)
	e.String("provider", r.ProviderName)
	if len(r.keywordNames) > 0 {
		e.OpenList("keywords")
		for _, k := range r.keywordNames {
			e.Item("keywords", event.Text, r.text(k))
		}
		e.CloseList()
	}
	e.Close()
}

// masked returns the message without what is left out of the data: it is made of
// the same texts, and would tell the names that were taken out of these.
func (r *Record) masked(e *event.Encoder) string {
	m := r.Message
	for i := roots; i < len(r.nodes); i++ {
		n := &r.nodes[i]
		if n.value.empty() {
			continue
		}
		value := strings.TrimSpace(r.text(n.value))
		clean, keep := e.Clean(r.text(n.name), event.Text, value)
		if !keep {
			clean = mark
		}
		if clean != value && len(value) > 1 {
			m = strings.ReplaceAll(m, value, clean)
		}
	}
	if clean, keep := e.Clean("user_id", event.Account, r.UserID); !keep || clean != r.UserID {
		if !keep {
			clean = mark
		}
		m = strings.ReplaceAll(m, r.UserID, clean)
	}
	return m
}

// mark stands in a message for what was left out, as it does for a secret.
const mark = "[redacted]"
