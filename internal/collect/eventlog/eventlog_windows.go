package eventlog

import (
	"errors"
	"fmt"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/windows"
)

// The calls of wevtapi.dll (winevt.h). It is loaded from the system's folder alone.
var wevtapi = windows.NewLazySystemDLL("wevtapi.dll")

var (
	evtSubscribe                = wevtapi.NewProc("EvtSubscribe")
	evtQuery                    = wevtapi.NewProc("EvtQuery")
	evtNext                     = wevtapi.NewProc("EvtNext")
	evtRender                   = wevtapi.NewProc("EvtRender")
	evtClose                    = wevtapi.NewProc("EvtClose")
	evtCreateBookmark           = wevtapi.NewProc("EvtCreateBookmark")
	evtUpdateBookmark           = wevtapi.NewProc("EvtUpdateBookmark")
	evtOpenChannelEnum          = wevtapi.NewProc("EvtOpenChannelEnum")
	evtNextChannelPath          = wevtapi.NewProc("EvtNextChannelPath")
	evtOpenChannelConfig        = wevtapi.NewProc("EvtOpenChannelConfig")
	evtGetChannelConfigProperty = wevtapi.NewProc("EvtGetChannelConfigProperty")
	evtOpenLog                  = wevtapi.NewProc("EvtOpenLog")
	evtGetLogInfo               = wevtapi.NewProc("EvtGetLogInfo")
	evtOpenPublisherMetadata    = wevtapi.NewProc("EvtOpenPublisherMetadata")
	evtFormatMessage            = wevtapi.NewProc("EvtFormatMessage")
)

// Constants of winevt.h.
const (
	subscribeStartAtOldest      = 2       // EvtSubscribeStartAtOldestRecord
	subscribeStartAfterBookmark = 3       // EvtSubscribeStartAfterBookmark
	subscribeStrict             = 0x10000 // EvtSubscribeStrict

	queryChannelPath      = 0x1   // EvtQueryChannelPath
	queryReverseDirection = 0x200 // EvtQueryReverseDirection
	openChannelPath       = 0x1   // EvtOpenChannelPath

	renderEventXML = 1 // EvtRenderEventXml
	renderBookmark = 2 // EvtRenderBookmark

	formatMessageEvent = 1 // EvtFormatMessageEvent

	channelEnabled = 0 // EvtChannelConfigEnabled
	channelMaxSize = 8 // EvtChannelLoggingConfigMaxSize

	logFileSize     = 3 // EvtLogFileSize
	logRecords      = 5 // EvtLogNumberOfLogRecords
	logOldestRecord = 6 // EvtLogOldestRecordNumber
)

// A handle is one of wevtapi (EVT_HANDLE), or 0.
type handle uintptr

// call calls p and returns what it returned, or the error that it left behind.
// The arguments that are pointers are converted in the call of call (rule 4 of
// unsafe.Pointer), which the compiler keeps alive by this directive.
//
//go:uintptrescapes
func call(p *windows.LazyProc, args ...uintptr) (uintptr, error) {
	if err := p.Find(); err != nil {
		return 0, fmt.Errorf("%s: %w", p.Name, errors.ErrUnsupported)
	}
	r, _, err := syscall.SyscallN(p.Addr(), args...)
	if r == 0 {
		return 0, errno(err)
	}
	return r, nil
}

func (h handle) close() error {
	if h == 0 {
		return nil
	}
	_, err := call(evtClose, uintptr(h))
	return err
}

// windowsLog is the event log of this machine.
type windowsLog struct{ waiters waiters }

func openSystem() (system, error) {
	if err := wevtapi.Load(); err != nil {
		return nil, errors.ErrUnsupported
	}
	return new(windowsLog), nil
}

func (w *windowsLog) close() error {
	w.waiters.end()
	return nil
}

// channels lists the names of all channels.
func (w *windowsLog) channels() (names []string, err error) {
	r, err := call(evtOpenChannelEnum, 0, 0)
	if err != nil {
		return nil, fmt.Errorf("EvtOpenChannelEnum: %w", err)
	}
	defer func() { err = errors.Join(err, handle(r).close()) }()
	buf := make([]uint16, 256)
	for {
		var used uint32 // characters
		_, err := call(evtNextChannelPath, r, uintptr(len(buf)), uintptr(unsafe.Pointer(&buf[0])), uintptr(unsafe.Pointer(&used)))
		switch {
		case errors.Is(err, errno(windows.ERROR_INSUFFICIENT_BUFFER)) && int(used) > len(buf):
			buf = make([]uint16, used)
		case errors.Is(err, errNoMore):
			return names, nil
		case err != nil:
			return nil, fmt.Errorf("EvtNextChannelPath: %w", err)
		default:
			names = append(names, windows.UTF16ToString(buf))
		}
	}
}

// end returns a bookmark of the newest record, by asking for the first from the end.
func (w *windowsLog) end(channel string) (bookmark string, err error) {
	path, err := windows.UTF16PtrFromString(channel)
	if err != nil {
		return "", errNoChannel
	}
	query, err := call(evtQuery, 0, uintptr(unsafe.Pointer(path)), 0, queryChannelPath|queryReverseDirection)
	if err != nil {
		return "", fmt.Errorf("EvtQuery: %w", err)
	}
	s := winSub{handle: handle(query), patience: 10_000}
	defer func() { err = errors.Join(err, s.close()) }()
	if _, err := s.next(1); errors.Is(err, errNoMore) {
		return "", nil
	} else if err != nil {
		return "", err
	}
	if s.place, err = createBookmark(""); err != nil {
		return "", err
	}
	if err := s.mark(0); err != nil {
		return "", err
	}
	return s.bookmark()
}

// A variant is EVT_VARIANT, of which the value stands first and numbers up to 64
// bits in place.
type variant struct {
	value uint64
	count uint32
	kind  uint32
}

// Types of a variant that is asked for here (EVT_VARIANT_TYPE).
const (
	variantUint32  = 8
	variantUint64  = 10
	variantBoolean = 13
)

// number returns a number or a truth value, 0 for all else.
func (v *variant) number() uint64 {
	switch v.kind {
	case variantUint64:
		return v.value
	case variantUint32, variantBoolean:
		return v.value & 0xffffffff
	}
	return 0
}

// logProperty and channelProperty ask for a number.
func logProperty(log, id uintptr) (uint64, error) {
	v, used := new(variant), new(uint32)
	if _, err := call(evtGetLogInfo, log, id, unsafe.Sizeof(*v), uintptr(unsafe.Pointer(v)), uintptr(unsafe.Pointer(used))); err != nil {
		return 0, fmt.Errorf("EvtGetLogInfo of property %d: %w", id, err)
	}
	return v.number(), nil
}

func channelProperty(config, id uintptr) (uint64, error) {
	v, used := new(variant), new(uint32)
	if _, err := call(evtGetChannelConfigProperty, config, id, 0, unsafe.Sizeof(*v), uintptr(unsafe.Pointer(v)), uintptr(unsafe.Pointer(used))); err != nil {
		return 0, fmt.Errorf("EvtGetChannelConfigProperty %d: %w", id, err)
	}
	return v.number(), nil
}

// info tells of the log of a channel.
func (w *windowsLog) info(channel string) (info logInfo, err error) {
	path, err := windows.UTF16PtrFromString(channel)
	if err != nil {
		return info, errNoChannel
	}
	config, err := call(evtOpenChannelConfig, 0, uintptr(unsafe.Pointer(path)), 0)
	if err != nil {
		return info, fmt.Errorf("EvtOpenChannelConfig: %w", err)
	}
	defer func() { err = errors.Join(err, handle(config).close()) }()
	log, err := call(evtOpenLog, 0, uintptr(unsafe.Pointer(path)), openChannelPath)
	if err != nil {
		return info, fmt.Errorf("EvtOpenLog: %w", err)
	}
	defer func() { err = errors.Join(err, handle(log).close()) }()
	enabled, err := channelProperty(config, channelEnabled)
	if err != nil {
		return info, err
	}
	info.enabled = enabled != 0
	if info.count, err = logProperty(log, logRecords); err != nil || info.count == 0 {
		return info, err
	}
	if info.oldest, err = logProperty(log, logOldestRecord); err != nil {
		return info, err
	}
	const chunk = 64 << 10 // a log grows by these
	size, err1 := logProperty(log, logFileSize)
	most, err2 := channelProperty(config, channelMaxSize)
	info.full = err1 == nil && err2 == nil && size+2*chunk >= most // it tells only why records are missing
	return info, nil
}

// subscribe begins to read. The system sets an event when records come; that is a
// manual-reset event, set from the start, as EvtSubscribe wants it.
func (w *windowsLog) subscribe(channel, query, bookmark string) (subscription, error) {
	path, err := windows.UTF16PtrFromString(channel)
	if err != nil {
		return nil, errNoChannel
	}
	var filter *uint16
	if query != "" {
		if filter, err = windows.UTF16PtrFromString(query); err != nil {
			return nil, errQuery
		}
	}
	s := &winSub{given: bookmark, signal: make(chan struct{}, 1)}
	if s.place, err = createBookmark(bookmark); err != nil {
		return nil, err
	}
	if s.event, err = windows.CreateEvent(nil, 1, 1, nil); err != nil {
		return nil, errors.Join(fmt.Errorf("CreateEvent: %w", err), s.close())
	}
	from, at := uintptr(subscribeStartAtOldest), uintptr(0)
	if bookmark != "" {
		from, at = subscribeStartAfterBookmark|subscribeStrict, uintptr(s.place)
	}
	h, err := call(evtSubscribe, 0, uintptr(s.event), uintptr(unsafe.Pointer(path)), uintptr(unsafe.Pointer(filter)), at, 0, 0, from)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("EvtSubscribe: %w", err), s.close())
	}
	s.handle = handle(h)
	s.waiter = w.waiters.add(s.event, s.signal)
	return s, nil
}

func createBookmark(xml string) (handle, error) {
	var text *uint16
	if xml != "" {
		var err error
		if text, err = windows.UTF16PtrFromString(xml); err != nil {
			return 0, errBadXML
		}
	}
	h, err := call(evtCreateBookmark, uintptr(unsafe.Pointer(text)))
	switch {
	case err != nil && xml != "": // whatever number it has
		return 0, fmt.Errorf("EvtCreateBookmark: %w, %w", errBadXML, err)
	case err != nil:
		return 0, fmt.Errorf("EvtCreateBookmark: %w", err)
	}
	return handle(h), nil
}

// wideLeast is how many characters there is room for before it is known how many
// there are. Few records have more.
const wideLeast = 4 << 10

// A winSub is a subscription, or the result of a query.
type winSub struct {
	handle   handle
	patience uintptr // milliseconds that the first record of a query may take
	place    handle  // the bookmark
	marked   bool
	given    string
	event    windows.Handle
	signal   chan struct{}
	waiter   *waiter

	publishers map[string]publisher // whose texts are open

	records [fetch]handle
	fetched int
	wide    []uint16 // what is rendered …
	text    []byte   // … in UTF-8

	used, properties uint32 // what calls say of their result; here since they take pointers to it
}

func (s *winSub) ready() <-chan struct{} { return s.signal }

// next fetches records. The event was reset before ready had its value, so that
// none that comes after is missed.
func (s *winSub) next(most int) (int, error) {
	if err := s.release(); err != nil {
		return 0, err
	}
	s.used = 0
	// A handle is as wide as an EVT_HANDLE, which is a pointer. Rule 4 of
	// unsafe.Pointer holds here and below: pointers become numbers in the call.
	_, err := call(evtNext, uintptr(s.handle), uintptr(min(most, len(s.records))), uintptr(unsafe.Pointer(&s.records[0])), s.patience, 0, uintptr(unsafe.Pointer(&s.used)))
	if err != nil {
		if len(s.wide) > wideLeast { // a machine has hundreds of channels that are silent
			s.wide, s.text = nil, nil
		}
		return 0, err
	}
	s.fetched = min(int(s.used), len(s.records))
	if s.fetched == 0 {
		return 0, errNoMore
	}
	return s.fetched, nil
}

// release closes the records that were fetched.
func (s *winSub) release() error {
	var errs []error
	for i := range s.fetched {
		errs = append(errs, s.records[i].close())
	}
	s.fetched = 0
	return errors.Join(errs...)
}

func (s *winSub) xml(i int) ([]byte, error) {
	wide, err := s.render(s.records[i], renderEventXML)
	if err != nil {
		return nil, err
	}
	s.text = appendUTF8(s.text[:0], wide)
	return s.text, nil
}

// render renders a record or a bookmark into the reused buffer.
func (s *winSub) render(h handle, as uintptr) ([]uint16, error) {
	if s.wide == nil {
		s.wide = make([]uint16, wideLeast)
	}
	for {
		s.used = 0
		_, err := call(evtRender, 0, uintptr(h), as, uintptr(2*len(s.wide)), uintptr(unsafe.Pointer(&s.wide[0])), uintptr(unsafe.Pointer(&s.used)), uintptr(unsafe.Pointer(&s.properties)))
		used := s.used // bytes
		if err == nil {
			return ended(s.wide[:min(int(used)/2, len(s.wide))]), nil
		}
		if !errors.Is(err, errno(windows.ERROR_INSUFFICIENT_BUFFER)) || int(used) <= 2*len(s.wide) || used > 64<<20 {
			return nil, fmt.Errorf("EvtRender: %w", err)
		}
		s.wide = make([]uint16, int(used)/2+1)
	}
}

func (s *winSub) mark(i int) error {
	if _, err := call(evtUpdateBookmark, uintptr(s.place), uintptr(s.records[i])); err != nil {
		return fmt.Errorf("EvtUpdateBookmark: %w", err)
	}
	s.marked = true
	return nil
}

func (s *winSub) bookmark() (string, error) {
	if !s.marked {
		return s.given, nil
	}
	wide, err := s.render(s.place, renderBookmark)
	if err != nil {
		return "", err
	}
	return string(appendUTF8(nil, wide)), nil
}

// close closes all that the subscription holds; the waiter goes before its event.
func (s *winSub) close() error {
	errs := []error{s.release(), s.closePublishers()}
	if s.waiter != nil {
		s.waiter.remove()
	}
	errs = append(errs, s.handle.close(), s.place.close())
	if s.event != 0 {
		errs = append(errs, windows.CloseHandle(s.event))
	}
	s.handle, s.place, s.event = 0, 0, 0
	return errors.Join(errs...)
}

// A publisher is the texts of a provider, kept open since opening takes long.
type publisher struct {
	handle handle
	err    error // it cannot be opened …
	until  time.Time
}

const (
	publishersMost = 32              // kept open for one channel
	publisherRetry = 5 * time.Minute // after one could not be opened
)

// message returns what record i says in words.
func (s *winSub) message(i int, provider string) (string, error) {
	p, err := s.publisher(provider)
	if err != nil {
		return "", err
	}
	for {
		s.used = 0
		_, err := call(evtFormatMessage, uintptr(p), uintptr(s.records[i]), 0, 0, 0, formatMessageEvent, uintptr(len(s.wide)), uintptr(unsafe.Pointer(&s.wide[0])), uintptr(unsafe.Pointer(&s.used)))
		used := s.used // characters
		switch {
		case errors.Is(err, errno(windows.ERROR_INSUFFICIENT_BUFFER)) && int(used) > len(s.wide) && used < 32<<20:
			s.wide = make([]uint16, used)
		case err == nil, errors.Is(err, errUnresolved), errors.Is(err, errParameter), errors.Is(err, errInserts): // the text is there, with what could not be filled in
			return string(appendUTF8(nil, ended(s.wide[:min(int(used), len(s.wide))]))), nil
		default:
			return "", fmt.Errorf("EvtFormatMessage: %w", err)
		}
	}
}

// publisher returns the texts of a provider.
func (s *winSub) publisher(name string) (handle, error) {
	p, known := s.publishers[name]
	if known && (p.err == nil || time.Now().Before(p.until)) {
		return p.handle, p.err
	}
	if len(s.publishers) >= publishersMost {
		if err := s.closePublishers(); err != nil {
			return 0, err
		}
	}
	wide, err := windows.UTF16PtrFromString(name)
	if err != nil {
		return 0, errPublisher
	}
	h, err := call(evtOpenPublisherMetadata, 0, uintptr(unsafe.Pointer(wide)), 0, 0, 0)
	if err != nil {
		err = fmt.Errorf("EvtOpenPublisherMetadata: %w", err)
	}
	if s.publishers == nil {
		s.publishers = map[string]publisher{}
	}
	s.publishers[name] = publisher{handle: handle(h), err: err, until: time.Now().Add(publisherRetry)}
	return handle(h), err
}

func (s *winSub) closePublishers() error {
	var errs []error
	for _, p := range s.publishers {
		errs = append(errs, p.handle.close())
	}
	clear(s.publishers)
	return errors.Join(errs...)
}
