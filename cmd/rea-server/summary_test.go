package main

import "testing"

func TestRecordsOfAnEventLogAreSummedUp(t *testing.T) {
	for _, c := range []struct{ kind, body, want string }{
		{"eventlog", `{"channel":"Security","record_id":7,"provider":"Auditing","event_id":4624,"level":0}`, "Security 4624, Auditing"},
		{"eventlog", `{"channel":"System","event_id":1,"level":2,"message":"It failed.\r\nTwice."}`, "System 1, error: It failed."},
		{"eventlog", `{"xml":"<Event"}`, "xml=<Event"},
		{"gap", `{"source":"eventlog","cause":"log_cleared","count":3,"channel":"System"}`, "3 events of eventlog System are missing: log_cleared"},
		{"gap", `{"source":"cpu","cause":"queue_full","count":3,"first":1,"last":3}`, "3 events of cpu, 1 to 3, are missing: queue_full"},
	} {
		if got := summary(c.kind, []byte(c.body)); got != c.want {
			t.Errorf("%s %s: %q, want %q", c.kind, c.body, got, c.want)
		}
	}
}
