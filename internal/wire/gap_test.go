package wire

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// gapLine returns the line number 7 of kind gap with that body, as the scanner
// reads it.
func gapLine(t *testing.T, body string) *Line {
	t.Helper()
	s := NewScanner(DefaultLimits)
	s.Reset([]byte(`{"v":1,"time":"2026-01-02T03:04:05Z","node":"0190d1c0-0000-7000-8000-00000000000a","hostname":"h","stream":"7f3a00000000000000000000000000c1","seq":7,"kind":"gap","gap":` + body + "}\n"))
	if !s.Scan() {
		t.Fatal(s.Err())
	}
	return s.Line()
}

const other = "7f3a00000000000000000000000000c2"

func TestAGapIsReadAsItWasWritten(t *testing.T) {
	at := time.Date(2026, 1, 2, 3, 4, 5, 6, time.UTC)
	for body, want := range map[string]Gap{
		`{"source":"eventlog","cause":"too_large","count":3,"since":"2026-01-02T03:04:05.000000006Z","until":"2026-01-02T03:04:05.000000006Z"}`: {Seq: 7, Source: "eventlog", Cause: "too_large", Count: 3, Since: at, Until: at},
		`{"cause":"queue_full","count":2,"stream":"` + other + `","first":4,"last":5}`:                                                          {Seq: 7, Cause: "queue_full", Count: 2, Stream: other, First: 4, Last: 5},
		`{"cause":"queue_full","count":99,"stream":"` + other + `","first":4,"last":5,"more":{"first":1}}`:                                      {Seq: 7, Cause: "queue_full", Count: 99, Stream: other, First: 4, Last: 5},
		`{"cause":"x","count":1,"stream":"` + other + `","first":1,"last":9223372036854775807}`:                                                 {Seq: 7, Cause: "x", Count: 1, Stream: other, First: 1, Last: MaxSeq},
		`{"cause":"x","count":9223372036854775807,"stream":"` + other + `","first":` + maxText + `,"last":` + maxText + `}`:                     {Seq: 7, Cause: "x", Count: MaxSeq, Stream: other, First: MaxSeq, Last: MaxSeq},
	} {
		if got, err := ParseGap(gapLine(t, body)); err != nil || got != want {
			t.Errorf("%s: %v\n%s", body, err, cmp.Diff(want, got))
		}
	}
}

const maxText = "9223372036854775807"

func TestAGapThatCannotBeCountedWithIsRefused(t *testing.T) {
	numbers := func(first, last string) string {
		return fmt.Sprintf(`{"cause":"x","count":1,"stream":%q,"first":%s,"last":%s}`, other, first, last)
	}
	for body, want := range map[string]string{
		`{}`:                       "cause",
		`{"cause":"x"}`:            "count is 0",
		`{"cause":"x","count":0}`:  "count is 0",
		`{"cause":"x","count":-1}`: "-1",
		`{"cause":"x","count":9223372036854775808}`:                            "count is",
		`{"cause":"x","count":1.5}`:                                            "1.5",
		`{"cause":"Queue full","count":1}`:                                     "cause",
		`{"cause":7,"count":1}`:                                                "string",
		`{"cause":"x","count":1,"first":1}`:                                    "belong together",
		`{"cause":"x","count":1,"first":1,"last":2}`:                           "belong together",
		`{"cause":"x","count":1,"since":"yesterday"}`:                          "yesterday",
		`{"cause":"x","count":1,"stream":"` + other + `"}`:                     "belong together",
		`{"cause":"x","count":1,"stream":"me","first":1,"last":1}`:             "stream: want 32",
		`{"cause":"x","count":1,"source":"` + strings.Repeat("s", 1025) + `"}`: "source",
		`{"cause":"` + strings.Repeat("c", 65) + `","count":1}`:                "cause",
		numbers("0", "1"):                                                      "first is 0",
		numbers("2", "1"):                                                      "first is 2 and last is 1",
		numbers("1", "9223372036854775808"):                                    "last is 9223372036854775808",
		numbers("18446744073709551615", "18446744073709551615"):                "first is 18446744073709551615",
		numbers("1", "18446744073709551616"):                                   "18446744073709551616",
	} {
		if g, err := ParseGap(gapLine(t, body)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %+v, %v; want %q", body, g, err, want)
		}
	}
}
