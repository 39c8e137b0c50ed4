package redact

import "strings"

// url deals with the : of ://: the password before the host, and addresses that
// are a secret as such.
func (c *scan) url(i int) int {
	s := c.s
	from := i + len("://")
	end := from
	for end < len(s) && !urlEnd(s[end]) && s[end] != '/' && s[end] != '?' && s[end] != '#' {
		end++
	}
	if at := strings.LastIndexByte(s[from:end], '@'); at >= 0 {
		c.userinfo(from, from+at)
		return from
	}
	if colon := strings.IndexByte(s[from:end], ':'); colon >= 0 && end < len(s) && s[end] != '#' {
		c.slashed(from+colon+1, end)
	}
	if end < len(s) && s[end] == '/' {
		c.webhook(s[from:end], end)
	}
	return from
}

func urlEnd(c byte) bool {
	return c <= ' ' || c == '"' || c == '\'' || c == '`' || c == '<' || c == '>' || c == '\\'
}

// userinfo deals with user:password, or with a token in the place of a user.
func (c *scan) userinfo(from, to int) {
	info := c.s[from:to]
	if colon := strings.IndexByte(info, ':'); colon >= 0 {
		if !harmless(info[colon+1:]) {
			c.hit(from+colon+1, to, "url-password")
		}
		return
	}
	if len(info) >= 20 && random(info) {
		c.hit(from, to, "url-token")
	}
}

// slashed deals with a password that has a / in it, which no URL may have.
func (c *scan) slashed(from, end int) {
	s := c.s
	if from == end || span(s, from, digit) == end { // a port
		return
	}
	for ; end < len(s) && end-from < 256 && !urlEnd(s[end]); end++ {
		if s[end] == '@' {
			c.hit(from, end, "url-password")
			return
		}
	}
}

// webhooks are addresses whose path lets everybody in who knows it.
var webhooks = [...]struct{ kind, host, path string }{
	{"slack-webhook", "hooks.slack.com", "/services/"},
	{"slack-webhook", "hooks.slack.com", "/workflows/"},
	{"slack-webhook", "hooks.slack.com", "/triggers/"},
	{"discord-webhook", "discord.com", "/api/webhooks/"},
	{"discord-webhook", "discordapp.com", "/api/webhooks/"},
	{"teams-webhook", "outlook.office.com", "/webhook/"},
	{"teams-webhook", ".webhook.office.com", "/webhookb2/"},
	{"zapier-webhook", "hooks.zapier.com", "/hooks/catch/"},
	{"ifttt-webhook", "maker.ifttt.com", "/trigger/"},
	{"telegram-token", "api.telegram.org", "/bot"},
	{"feishu-webhook", "open.feishu.cn", "/open-apis/bot/v2/hook/"},
}

// webhook deals with the path at i of an address at host.
func (c *scan) webhook(host string, i int) {
	s := c.s
	for _, w := range webhooks {
		if !strings.HasSuffix(host, w.host) || !strings.HasPrefix(s[i:], w.path) {
			continue
		}
		from := i + len(w.path)
		end := from
		for end < len(s) && !urlEnd(s[end]) && s[end] != '?' && s[end] != ',' && s[end] != ')' {
			end++
		}
		if end-from >= 8 && s[from:end] != Mark {
			c.hit(from, end, w.kind)
		}
		return
	}
}

// telegram deals with the : in the token of a Telegram bot: 123456789:AA…
func (c *scan) telegram(i int) int {
	s := c.s
	from := i
	for from > 0 && i-from < 12 && is(s[from-1], digit) {
		from--
	}
	end := span(s, i+1, word)
	if i-from < 8 || end-i-1 < 33 {
		return i
	}
	c.hit(from, end, "telegram-token")
	return end
}

// oracle deals with the : of jdbc:oracle:thin:user/password@host.
func (c *scan) oracle(i int) int {
	s := c.s
	end := i + 1
	for end < len(s) && end-i < 256 && !urlEnd(s[end]) && s[end] != '@' {
		end++
	}
	slash := strings.IndexByte(s[i:end], '/')
	if slash < 0 || end == len(s) || s[end] != '@' || harmless(s[i+slash+1:end]) {
		return i
	}
	c.hit(i+slash+1, end, "oracle-password")
	return end
}
