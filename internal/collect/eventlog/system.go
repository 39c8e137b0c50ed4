package eventlog

import (
	"errors"
	"strconv"
)

// A system is what the source asks of Windows. Each of its channels is used by one
// goroutine. Errors of Windows are errnos.
type system interface {
	// channels lists the names of all channels.
	channels() ([]string, error)
	// end returns a bookmark of the newest record, "" where there is none.
	end(channel string) (bookmark string, err error)
	// info tells of the log behind a channel.
	info(channel string) (logInfo, error)
	// subscribe begins to read behind a bookmark, at the oldest record if it is
	// "". Where the bookmark's record is not there it fails (Strict).
	subscribe(channel, query, bookmark string) (subscription, error)
	close() error
}

// A subscription is a position in one channel.
type subscription interface {
	// ready has a value when there may be more than next returned so far. What
	// comes while next is called makes it ready again.
	ready() <-chan struct{}
	// next fetches up to most records and returns how many; errNoMore if there
	// are none. They are good until it is called again.
	next(most int) (int, error)
	// xml renders record i, in UTF-8. It is good until it is called again.
	xml(i int) ([]byte, error)
	// message returns what record i, of that provider, says in words.
	message(i int, provider string) (string, error)
	// mark puts the bookmark at record i, bookmark renders it: as it was given to
	// subscribe, until it is put somewhere.
	mark(i int) error
	bookmark() (string, error)
	close() error
}

// pass hands on that the system has set its event, which stays set until reset: that
// comes first, and then the reader is told, who fetches until there is no more. So
// what comes while it fetches sets the event again. The other way round the reset
// would undo what set it behind the last fetch, and nobody would look.
func pass(reset func(), signal chan<- struct{}) {
	reset()
	select {
	case signal <- struct{}{}:
	default: // there is one already that was not taken
	}
}

// A logInfo is what is known of a log.
type logInfo struct {
	oldest, count uint64 // record ids are oldest to oldest+count-1
	enabled       bool
	full          bool // each new record overwrites old ones
}

// newest returns the id of the newest record.
func (i logInfo) newest() uint64 { return i.oldest + i.count - 1 }

// An errno is an error of Windows, with its number.
type errno uint32

// Those that the source tells apart (winerror.h).
const (
	errDenied     errno = 5     // ERROR_ACCESS_DENIED
	errHandle     errno = 6     // ERROR_INVALID_HANDLE: the service was restarted
	errBadData    errno = 13    // ERROR_INVALID_DATA: of a bookmark
	errNoMore     errno = 259   // ERROR_NO_MORE_ITEMS
	errNotFound   errno = 1168  // ERROR_NOT_FOUND: the bookmark's record
	errTimeout    errno = 1460  // ERROR_TIMEOUT: none came in time
	errServer     errno = 1722  // RPC_S_SERVER_UNAVAILABLE: the service is stopped
	errBound      errno = 1734  // RPC_S_INVALID_BOUND: too much for one call
	errCancelled  errno = 1818  // RPC_S_CALL_CANCELLED
	errQuery      errno = 15001 // ERROR_EVT_INVALID_QUERY
	errPublisher  errno = 15002 // ERROR_EVT_PUBLISHER_METADATA_NOT_FOUND
	errNoChannel  errno = 15007 // ERROR_EVT_CHANNEL_NOT_FOUND
	errBadXML     errno = 15008 // ERROR_EVT_MALFORMED_XML_TEXT: of a bookmark
	errDirect     errno = 15009 // ERROR_EVT_SUBSCRIPTION_TO_DIRECT_CHANNEL
	errStale      errno = 15011 // ERROR_EVT_QUERY_RESULT_STALE: the log was cleared or overwritten
	errPosition   errno = 15012 // ERROR_EVT_QUERY_RESULT_INVALID_POSITION
	errNoMessage  errno = 15027 // ERROR_EVT_MESSAGE_NOT_FOUND
	errMessageID  errno = 15028 // ERROR_EVT_MESSAGE_ID_NOT_FOUND
	errUnresolved errno = 15029 // ERROR_EVT_UNRESOLVED_VALUE_INSERT
	errParameter  errno = 15030 // ERROR_EVT_UNRESOLVED_PARAMETER_INSERT
	errInserts    errno = 15031 // ERROR_EVT_MAX_INSERTS_REACHED
)

var errnoTexts = map[errno]string{
	0:            "the system does not say why",
	errDenied:    "access denied: the agent's account must be one of the Event Log Readers",
	errHandle:    "the event log service was restarted",
	errBadData:   "the bookmark is damaged",
	errNoMore:    "no more records",
	errNotFound:  "the record of the bookmark is gone",
	errTimeout:   "no record in time",
	errServer:    "the event log service does not run",
	errBound:     "the records are too much for one call",
	errCancelled: "the call was cancelled",
	errQuery:     "the XPath is not one that Windows understands",
	errPublisher: "its provider is not installed",
	errNoChannel: "there is no such channel",
	errBadXML:    "the bookmark is damaged",
	errDirect:    "an analytic or debug channel cannot be subscribed to",
	errStale:     "the log was cleared or overwritten",
	errPosition:  "the position is gone",
	errNoMessage: "its provider has no text for it",
	errMessageID: "its provider has no text for it",
}

func (e errno) Error() string {
	number := "Windows error " + strconv.FormatUint(uint64(e), 10)
	if text := errnoTexts[e]; text != "" {
		return text + " (" + number + ")"
	}
	return number
}

// isLost reports whether err says that a bookmark leads nowhere.
func isLost(err error) bool {
	for _, e := range []errno{errNotFound, errStale, errPosition, errBadData, errBadXML} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}
