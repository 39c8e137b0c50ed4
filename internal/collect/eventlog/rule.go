package eventlog

import (
	"fmt"
	"strconv"
	"strings"
)

// A Rule says what is different for some channels.
type Rule struct {
	Channel string // a name, or a pattern with * and ?
	apply   []func(*settings)
}

// settings are what holds for one channel.
type settings struct {
	XPath        string // "" for all
	RPS          int
	Drop         bool // what is over RPS; else it waits in the log
	Oldest       bool // begin there; else with what is new
	Message, XML bool
}

// A RuleError says what is wrong with a rule, and what would be right.
type RuleError struct{ What, Fix string }

func (e *RuleError) Error() string { return e.What }

// ParseRule reads a rule as people write it, its settings divided by blanks:
//
//	Security: start_at=oldest rate=drop rps=2000
//	Microsoft-*/Operational: message=true xpath=*[System[Level<=3]]
//
// xpath comes last and takes all of the rest.
func ParseRule(s string) (Rule, error) {
	channel, rest, ok := strings.Cut(s, ":")
	r := Rule{Channel: strings.TrimSpace(channel)}
	if !ok || r.Channel == "" || strings.TrimSpace(rest) == "" {
		return Rule{}, &RuleError{"is not channel: setting=value", "write it like Security: rps=2000 message=true"}
	}
	for rest = strings.TrimSpace(rest); rest != ""; {
		var setting string
		if strings.HasPrefix(rest, "xpath=") {
			setting, rest = rest, ""
		} else {
			setting, rest, _ = strings.Cut(rest, " ")
			rest = strings.TrimSpace(rest)
		}
		name, value, _ := strings.Cut(setting, "=")
		apply, err := parseSetting(name, value)
		if err != nil {
			return Rule{}, err
		}
		r.apply = append(r.apply, apply)
	}
	return r, nil
}

func parseSetting(name, value string) (func(*settings), error) {
	switch name {
	case "xpath":
		if value == "" {
			return nil, &RuleError{"has an empty xpath", "write * for all, or leave it out"}
		}
		return func(s *settings) { s.XPath = value }, nil
	case "rps":
		n, err := strconv.Atoi(value)
		if err != nil || n < 1 || n > MaxRPS {
			return nil, &RuleError{fmt.Sprintf("has rps=%s", value), fmt.Sprintf("write a number from 1 to %d", MaxRPS)}
		}
		return func(s *settings) { s.RPS = n }, nil
	case "rate":
		return choice(name, value, "drop", "defer", func(s *settings, drop bool) { s.Drop = drop })
	case "start_at":
		return choice(name, value, "oldest", "now", func(s *settings, oldest bool) { s.Oldest = oldest })
	case "message":
		return choice(name, value, "true", "false", func(s *settings, yes bool) { s.Message = yes })
	case "xml":
		return choice(name, value, "true", "false", func(s *settings, yes bool) { s.XML = yes })
	}
	return nil, &RuleError{fmt.Sprintf("has the setting %q", name), "the settings are start_at, rate, rps, message, xml and, as the last, xpath"}
}

func choice(name, value, yes, no string, set func(*settings, bool)) (func(*settings), error) {
	if value != yes && value != no {
		return nil, &RuleError{fmt.Sprintf("has %s=%s", name, value), fmt.Sprintf("write %s=%s or %s=%s", name, yes, name, no)}
	}
	return func(s *settings) { set(s, value == yes) }, nil
}

// CheckChannel says what is wrong with the name or the pattern of a channel.
func CheckChannel(s string) error {
	switch {
	case strings.TrimSpace(s) == "":
		return &RuleError{"is empty", "name a channel, as wevtutil el lists them"}
	case len(s) > maxName || strings.ContainsAny(s, "\"<>|\x00"):
		return &RuleError{"cannot be the name of a channel", "name a channel, as wevtutil el lists them"}
	}
	return nil
}

// matches reports whether name is what the pattern means, without regard to case;
// * stands for any text and ? for a character.
func matches(pattern, name string) bool {
	p, s := strings.ToLower(pattern), strings.ToLower(name)
	star, mark := -1, 0 // where the last * was, and what it has taken
	i, j := 0, 0
	for j < len(s) {
		switch {
		case i < len(p) && p[i] == '*':
			star, mark = i, j
			i++
		case i < len(p) && (p[i] == '?' || p[i] == s[j]):
			i++
			j++
		case star >= 0:
			mark++
			i, j = star+1, mark
		default:
			return false
		}
	}
	return strings.Trim(p[i:], "*") == ""
}

// isPattern reports whether s stands for names that have to be looked for.
func isPattern(s string) bool { return strings.ContainsAny(s, "*?") }
