package eventlog

import (
	"strings"
	"testing"
)

func TestRulesSayWhatIsWrong(t *testing.T) {
	for s, want := range map[string]string{
		"Security":                      "is not channel",
		"Security:":                     "is not channel",
		": rps=1":                       "is not channel",
		"Security: rps=0":               "has rps=0",
		"Security: rps=many":            "has rps=many",
		"Security: rate=slow":           "has rate=slow",
		"Security: start_at=noon":       "has start_at=noon",
		"Security: message=yes":         "has message=yes",
		"Security: xpath=":              "an empty xpath",
		"Security: level=3":             `the setting "level"`,
		"Security: rps=1  message=true": "",
		"*: xml=true xpath=*[System[(EventID=1 or EventID=2) and band(Keywords,4)]]": "",
	} {
		_, err := ParseRule(s)
		if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("%s: %v, want %q", s, err, want)
		}
	}
}

func TestTheLaterRuleCounts(t *testing.T) {
	c := Config{RPS: 5}
	for _, s := range []string{"*: rps=10 message=true", "Sec*: rps=20 rate=drop start_at=oldest xpath=*[System[Level=1]]", "security: xml=true message=false"} {
		r, err := ParseRule(s)
		if err != nil {
			t.Fatal(err)
		}
		c.Rules = append(c.Rules, r)
	}
	if got, want := c.settings("Security"), (settings{XPath: "*[System[Level=1]]", RPS: 20, Drop: true, Oldest: true, XML: true}); got != want {
		t.Errorf("%+v, want %+v", got, want)
	}
	if got, want := c.settings("System"), (settings{RPS: 10, Message: true}); got != want {
		t.Errorf("%+v, want %+v", got, want)
	}
}

func TestPatterns(t *testing.T) {
	for _, c := range []struct {
		pattern, name string
		want          bool
	}{
		{"Security", "security", true}, {"Sec*", "Security", true}, {"*", "", true}, {"*/Operational", "A-B/Operational", true},
		{"*/Operational", "A-B/Operational2", false}, {"S?stem", "System", true}, {"S?stem", "Stem", false}, {"a*b*c", "aXbYbZc", true},
		{"a*b*c", "aXbYbZ", false}, {"", "a", false}, {"a", "", false}, {"a**", "a", true}, {"*a", "aaab", false},
	} {
		if got := matches(c.pattern, c.name); got != c.want {
			t.Errorf("%q, %q: %v", c.pattern, c.name, got)
		}
	}
}
