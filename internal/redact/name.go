package redact

import "strings"

// A name is one behind which a value is a secret, wherever a longer name ends in
// it: db_password, X-Api-Key, clientSecret. It is compared without case and
// without - _ and space.
type name struct {
	name, kind string
	whole      bool // a word by itself, or one that begins here in camelCase: pass, not bypass
	strict     bool // only where the value looks random: much else has that name
	url        bool // only in the query of a URL
	line       bool // the value goes to the end of the line: a header of HTTP
}

var names = []name{
	{name: "password", kind: "password"},
	{name: "passwd", kind: "password"},
	{name: "passphrase", kind: "password"},
	{name: "passcode", kind: "password"},
	{name: "passwort", kind: "password"},
	{name: "kennwort", kind: "password"},
	{name: "passwordd", kind: "password", whole: true}, // netdom
	{name: "passwordo", kind: "password", whole: true},
	{name: "pwd", kind: "password"},
	{name: "psk", kind: "password", whole: true},
	{name: "pass", kind: "password", whole: true},
	{name: "storepass", kind: "password"}, // keytool
	{name: "keypass", kind: "password"},
	{name: "sshpass", kind: "password"},
	{name: "userpass", kind: "password"},
	{name: "dbpass", kind: "password"},
	{name: "ftppass", kind: "password"},
	{name: "smtppass", kind: "password"},
	{name: "secret", kind: "secret"},
	{name: "secretkeybase", kind: "secret"},
	{name: "token", kind: "token"},
	{name: "apikey", kind: "api-key"},
	{name: "apisecret", kind: "secret"},
	{name: "accesskey", kind: "access-key"},
	{name: "accesskeyid", kind: "access-key"},
	{name: "secretkey", kind: "secret-key"},
	{name: "privatekey", kind: "private-key"},
	{name: "encryptionkey", kind: "encryption-key"},
	{name: "signingkey", kind: "signing-key"},
	{name: "masterkey", kind: "master-key"},
	{name: "accountkey", kind: "azure-storage-key"},
	{name: "sharedkey", kind: "shared-key"},
	{name: "storagekey", kind: "azure-storage-key"},
	{name: "subscriptionkey", kind: "api-key"},
	{name: "integrationkey", kind: "api-key"},
	{name: "authkey", kind: "api-key"},
	{name: "bearer", kind: "bearer-token", whole: true}, // curl --oauth2-bearer
	{name: "authorization", kind: "authorization"},
	{name: "credential", kind: "credential"},
	{name: "credentials", kind: "credential"},
	{name: "keydata", kind: "private-key"}, // client-key-data of a kubeconfig
	{name: "cookie", kind: "cookie", line: true},
	{name: "sessionid", kind: "session", strict: true},
	{name: "sessid", kind: "session", strict: true},
	{name: "auth", kind: "authorization", whole: true, strict: true},
	{name: "signature", kind: "url-signature", url: true, strict: true},
	{name: "sig", kind: "url-signature", url: true, strict: true},
}

// namesEnding are the names by their last two bytes.
var namesEnding = groupsOf(names, func(n *name) string { return n.name[len(n.name)-2:] })

// secretName returns the name that s[:end] ends in, and where it begins there, or nil.
func secretName(s string, end int) (n *name, from int) {
	if end < 2 {
		return nil, 0
	}
	list := namesEnding.of(s[end-2], s[end-1])
	for i := range list {
		if from := endsFold(s[:end], list[i].name); from >= 0 && (!list[i].whole || wordBegins(s, from)) {
			return &list[i], from
		}
	}
	return nil, 0
}

// endsFold returns where name begins at the end of s, or -1.
func endsFold(s, name string) int {
	i := len(s)
	for j := len(name) - 1; j >= 0; j-- {
		i--
		for j < len(name)-1 && i >= 0 && (s[i] == '-' || s[i] == '_' || s[i] == ' ') {
			i--
		}
		if i < 0 || fold(s[i]) != name[j] {
			return -1
		}
	}
	return i
}

// wordBegins reports whether a word begins at i.
func wordBegins(s string, i int) bool {
	return i == 0 || !is(s[i-1], alnum) || is(s[i-1], lower) && is(s[i], upper)
}

// assignment deals with the = : > ( or %3D at i, which may stand between a name and a
// secret. It returns where to go on.
func (c *scan) assignment(i int) int {
	s := c.s
	if s[i] == ':' && (i+1 < len(s) && s[i+1] == ':' || i > 0 && s[i-1] == ':') { // of a language, not of a value
		return i
	}
	if s[i] == '%' && !prefixFold(s[i:], "%3d") && !prefixFold(s[i:], "%3a") {
		return i
	}
	end := i
	for n := 0; end > 0 && n < 4; n++ {
		if p := s[end-1]; p != '"' && p != '\'' && p != ' ' && p != '\\' && p != ']' {
			break
		}
		end--
	}
	n, from := secretName(s, end)
	switch {
	case n != nil:
	case s[i] == '=' && end == i:
		return c.attribute(i)
	case s[i] == ':' && end == i && i >= 4 && strings.EqualFold(s[i-4:i], "thin"):
		return c.oracle(i)
	default:
		return i
	}
	if s[i] == '>' {
		before := max(0, from-64)
		tag := strings.LastIndexByte(s[before:from], '<')
		switch {
		case tag < 0:
			return i
		case s[before+tag+1] == '/':
			return c.closed(before+tag, i, n)
		}
	}
	if s[i] == '%' {
		return c.value(i+len("%3D"), n, '=')
	}
	if s[i] == '(' {
		return c.called(i+1, n)
	}
	if n.url && (s[i] != '=' || from == 0 || s[from-1] != '?' && s[from-1] != '&' && s[from-1] != ';' && s[from-1] != '-' && s[from-1] != ' ') {
		return i
	}
	return c.value(i+1, n, s[i])
}

// called deals with setPassword("…") and PSCredential("user", "…"), whose
// arguments begin at p.
func (c *scan) called(p int, n *name) int {
	s := c.s
	if p == len(s) || s[p] != '"' && s[p] != '\'' || n.kind != "password" && n.kind != "credential" {
		return p
	}
	if n.kind == "credential" {
		_, to, _ := c.operand(p)
		if p = gap(s, to); p >= len(s) || s[p] != '"' && s[p] != '\'' {
			return p
		}
	}
	return c.quoted(p, n.kind)
}

// attribute deals with the = of name="password" value="…", the way of XML to
// name a value.
func (c *scan) attribute(i int) int {
	s := c.s
	if i < 8 || !strings.EqualFold(s[i-5:i], "value") || s[i-6] != ' ' || s[i-7] != '"' && s[i-7] != '\'' {
		return i
	}
	if n, _ := secretName(s, i-7); n != nil {
		return c.value(i+1, n, '=')
	}
	return i
}

// value deals with the value that stands behind a name and the sign sep before p.
func (c *scan) value(p int, n *name, sep byte) int {
	s := c.s
	for p < len(s) && (s[p] == '=' || s[p] == '>') && sep != '>' { // == and => and :=
		p++
	}
	start := p
	for p < len(s) && (s[p] == ' ' || s[p] == '\t') && p-start < 16 {
		p++
	}
	if sep == '>' {
		return c.element(p, n)
	}
	if strings.HasPrefix(s[p:], `[]string{"`) { // Go's way to show a header
		p += len(`[]string{`)
	}
	from, to, quoted := c.operand(p)
	if n.line {
		return c.header(from, to, n.kind)
	}
	if known, list := isScheme(s[from:to]); known && !quoted {
		to = c.behindScheme(to, list)
	}
	v := s[from:to]
	switch {
	case harmless(v), n.strict && (len(v) < 16 || !random(v[:min(len(v), 128)])):
		return max(from, p)
	case !quoted && p > start && (sep == ':' && prose(v) || sep == '=' && identifier(v)):
		return p
	case n.whole && (span(v, 0, digit) == len(v) && len(v) < 5 || strings.HasPrefix(v, "Test")): // pass=3 fail=0, PASS: TestX
		return to
	case v[0] == '/' && sep == '=' && isPWD(s, start-1):
		return to
	case !quoted && (v[0] == '{' || v[0] == '[') && len(v) == 1:
		return to
	}
	c.hit(from, to, n.kind)
	return to
}

// isPWD reports whether the = at i stands behind PWD or OLDPWD, which name a
// folder, and not in a connection string.
func isPWD(s string, i int) bool {
	return i >= 3 && s[i-3:i] == "PWD" && (i == 3 || s[i-4] != ';' && s[i-4] != '_')
}

// element deals with the value of <password>…</password>.
func (c *scan) element(p int, n *name) int {
	end := p
	for end < len(c.s) && c.s[end] != '<' && c.s[end] != '\n' {
		end++
	}
	if end == p || end == len(c.s) || harmless(c.s[p:end]) || n.strict {
		return p
	}
	c.hit(p, end, n.kind)
	return end
}

// closed deals with the value before the </password> at tag, whose beginning has
// attributes. i is where it ends.
func (c *scan) closed(tag, i int, n *name) int {
	from := max(0, tag-1024)
	from += strings.LastIndexByte(c.s[from:tag], '>') + 1
	if from > 0 && c.s[from-1] == '>' && !harmless(c.s[from:tag]) && !n.strict {
		c.hit(from, tag, n.kind)
	}
	return i
}

// header deals with the value of a header that is secret to the end of its line.
func (c *scan) header(from, to int, kind string) int {
	s := c.s
	if strings.IndexByte(s[from:min(to, from+128)], '=') < 0 || harmless(s[from:to]) {
		return from
	}
	for to < len(s) && s[to] != '\n' && s[to] != '\r' && s[to] != '"' && s[to] != '\'' && (s[to] != '\\' || to+1 == len(s) || s[to+1] != 'r' && s[to+1] != 'n' && s[to+1] != '"') {
		to++
	}
	c.hit(from, to, kind)
	return to
}

// operand returns where the value at p begins and ends, without its quotes.
func (c *scan) operand(p int) (from, to int, quoted bool) {
	s := c.s
	b := p
	for b < len(s) && s[b] == '\\' && b-p < 8 {
		b++
	}
	if b < len(s) && (s[b] == '"' || s[b] == '\'' || s[b] == '`') {
		return b + 1, closing(s, b+1, s[b], b-p), true
	}
	if p < len(s) && (s[p] == 'b' || s[p] == 'u' || s[p] == 'r' || s[p] == '@') && p+1 < len(s) && (s[p+1] == '"' || s[p+1] == '\'') {
		return p + 2, closing(s, p+2, s[p+1], 0), true // b'…' of Python, @"…" of C#
	}
	to = c.wordEnd(p)
	for to > p && (s[to-1] == ')' || s[to-1] == ']' || s[to-1] == '}' || s[to-1] == '>') && s[p:to] != Mark {
		to--
	}
	return p, to, false
}

// closing returns where the quote that was opened before p ends: at the next one
// with as many backslashes or fewer, or with the line where there is none.
func closing(s string, p int, quote byte, backslashes int) int {
	n := 0
	for i := p; i < len(s); i++ {
		switch s[i] {
		case '\\':
			n++
			continue
		case quote:
			if n <= backslashes {
				return i - n
			}
		case '\n':
			return i
		}
		n = 0
	}
	return len(s)
}

// wordEnd returns where the word at p ends.
func (c *scan) wordEnd(p int) int {
	if !c.word.has(p) {
		c.word = extent{p, wordEnd(c.s, p)}
	}
	return c.word.to
}

// wordEnd returns where the word at p ends: with white space, a quote that closes
// something, or a sign behind which another value begins.
func wordEnd(s string, p int) int {
	for i := p; i < len(s); i++ {
		switch c := s[i]; c {
		case ' ', '\t', '\n', '\r', '\v', '\f', 0, 0x1b:
			return i
		case '"', '\'', '`':
			if i+1 == len(s) || !is(s[i+1], word) {
				return i
			}
		case '\\':
			if i+1 < len(s) && (s[i+1] == '"' || s[i+1] == '\'') {
				return i
			}
		case '<':
			if i+1 < len(s) && s[i+1] == '/' {
				return i
			}
		case ';', ',', '&', '|':
			if i+1 == len(s) || !is(s[i+1], word|dot|base64) || another(s[i+1:]) {
				return i
			}
		}
	}
	return len(s)
}

// another reports whether s begins with a name and a sign behind it.
func another(s string) bool {
	const longest = 48
	for i := range min(len(s), longest) {
		switch c := s[i]; {
		case is(c, word) || c == '.' || c == ' ' && i > 0:
		case c == '=' || c == ':':
			return i > 0
		default:
			return c == ';' && (s[:i] == "amp" || s[:i] == "quot") // of HTML
		}
	}
	return false
}

// identifier reports whether v is a name, a = and anything.
func identifier(v string) bool {
	end := span(v, 0, word)
	return end > 0 && end < len(v) && v[end] == '=' && !is(v[0], digit)
}

// schemes are HTTP's ways to authorize, behind which the secret stands. Behind
// those of the second list it is among parameters, to the end of the line.
var (
	schemes = [...]string{"bearer", "basic", "token", "negotiate", "ntlm", "apikey", "sso-key", "splunk", "genie-key"}
	listing = [...]string{"digest", "hawk", "aws4-hmac-sha256"}
)

// isScheme reports whether v is a way to authorize, and whether parameters follow.
func isScheme(v string) (known, list bool) {
	if len(v) > len("aws4-hmac-sha256") {
		return false, false
	}
	for _, s := range schemes {
		if strings.EqualFold(v, s) {
			return true, false
		}
	}
	for _, s := range listing {
		if strings.EqualFold(v, s) {
			return true, true
		}
	}
	return false, false
}

// behindScheme returns where the secret ends that stands behind a scheme.
func (c *scan) behindScheme(to int, list bool) int {
	s := c.s
	for to < len(s) && s[to] == ' ' {
		to++
	}
	if !list {
		return c.wordEnd(to)
	}
	for to < len(s) && s[to] != '\n' && s[to] != '\r' && s[to] != '\'' {
		to++
	}
	return to
}

// scheme deals with Bearer, Basic and AUTH PLAIN that no header's name precedes;
// i is inside the word.
func (c *scan) scheme(i int) int {
	s := c.s
	switch {
	case prefixFold(s[i-2:], "bearer "):
		from := i - 2 + len("bearer ")
		end := trimDots(s, from, span(s, from, word|dot|base64))
		if end-from >= 16 && random(s[from:end]) {
			c.hit(from, end, "bearer-token")
			return end
		}
	case i >= 4 && prefixFold(s[i-4:], "basic "):
		from := i - 4 + len("basic ")
		end := span(s, from, alnum|base64)
		if v := s[from:end]; len(v) >= 8 && random(v) && strings.IndexByte(v, '/') < 0 {
			c.hit(from, end, "basic-auth")
			return end
		}
	case i >= 8 && strings.HasPrefix(s[i-8:], "AUTH PLAIN "):
		return c.prefixed(i-8+len("AUTH PLAIN "), 0, 8, alnum|base64, "smtp-auth")
	}
	return i
}

// quoted deals with a secret in the quotes at i.
func (c *scan) quoted(i int, kind string) int {
	from, to, _ := c.operand(i)
	if harmless(c.s[from:to]) {
		return to
	}
	c.hit(from, to, kind)
	return to
}

// said deals with the w of password where no sign follows: PASSWORD 'x' of
// SQL, and login x password y of .netrc.
func (c *scan) said(i int) int {
	s := c.s
	end := span(s, i, letter)
	if strings.HasSuffix(s[:i], "chpass") {
		return c.chpasswd(i)
	}
	if i < 4 || !strings.EqualFold(s[i-4:i], "pass") || !strings.EqualFold(s[i:end], "word") && !strings.EqualFold(s[i:end], "wd") {
		return i
	}
	if strings.HasPrefix(s[end:], "('") || strings.HasPrefix(s[end:], "(\"") {
		return c.quoted(end+1, "sql-password")
	}
	if end+2 >= len(s) || s[end] != ' ' && s[end] != '\n' && s[end] != '\t' {
		return i
	}
	if s[end] == ' ' && s[end+1] == '\'' || s[end+1] == '"' {
		return c.quoted(end+1, "sql-password")
	}
	if afterLogin(s[max(0, i-4-80) : i-4]) {
		from, to, _ := c.operand(end + 1)
		if !harmless(s[from:to]) && !prose(s[from:to]) {
			c.hit(from, to, "netrc-password")
		}
		return to
	}
	return i
}

// chpasswd deals with echo user:password | chpasswd.
func (c *scan) chpasswd(i int) int {
	before := c.s[:i-len("chpass")]
	to := len(strings.TrimRight(before, " |\"'"))
	from := max(0, to-80)
	from += strings.LastIndexAny(before[from:to], " \"'\n") + 1
	colon := strings.IndexByte(before[from:to], ':')
	if to < len(before) && strings.IndexByte(before[to:], '|') >= 0 && colon >= 0 && !harmless(before[from+colon+1:to]) {
		c.hit(from+colon+1, to, "user-password")
	}
	return i
}

// afterLogin reports whether s ends in "login" and a name.
func afterLogin(s string) bool {
	s = strings.TrimRight(s, " \t\n")
	s = strings.TrimRight(s[:strings.LastIndexAny(s, " \t\n")+1], " \t\n")
	return strings.HasSuffix(s, "login") || strings.HasSuffix(s, "account")
}

// harmless reports whether v stands where a secret could, and is none.
func harmless(v string) bool {
	if v == "" || v == Mark {
		return true
	}
	switch v[0] {
	case '*', '.', '-', 'x', 'X', '#':
		if strings.Count(v, v[:1]) == len(v) && (len(v) > 2 || v[0]|0x20 != 'x') {
			return true
		}
	case '$', '%': // %%1842 is a message of Windows
		return reference(v) || strings.HasPrefix(v, "%%")
	case '{':
		return strings.HasPrefix(v, "{{")
	case '<':
		return true // a place for a value
	}
	if len(v) > 12 {
		return false
	}
	switch strings.ToLower(strings.Trim(v, "()[]")) {
	case "null", "nil", "none", "true", "false", "undefined", "redacted", "hidden", "masked", "n/a", "yes", "no":
		return true
	}
	return false
}

// reference reports whether v names a variable, instead of a value.
func reference(v string) bool {
	switch {
	case len(v) < 2:
		return true
	case v[0] == '%':
		return v[len(v)-1] == '%'
	case v[1] == '{' || v[1] == '(':
		return true
	}
	end := span(v, 1, word)
	return end == len(v) && (is(v[1], upper) && holds(v[1:])&lower == 0 || v[1] == '_') || strings.HasPrefix(v, "$env:")
}

// prose reports whether v goes on where a sentence broke off at a colon: token:
// expired.
func prose(v string) bool {
	if span(v, 0, letter) != len(v) || len(v) > 14 {
		return false
	}
	switch strings.ToLower(v) {
	case "password", "passwords", "secret", "secrets", "tokens", "credentials", "keys",
		"a", "an", "and", "any", "are", "as", "at", "bad", "be", "but", "by", "can", "cannot", "could", "did", "does", "empty", "error", "exit",
		"expected", "expired", "failed", "failure", "for", "found", "from", "got", "has", "have", "if", "illegal", "in", "incorrect", "invalid", "is", "it",
		"key", "loaded", "malformed", "mismatch", "missing", "must", "neither", "new", "not", "of", "ok", "on", "only", "operation", "or", "permission",
		"please", "read", "refused", "rejected", "required", "requires", "reset", "revoked", "rpc", "set", "signature", "success", "syntax",
		"that", "the", "there", "this", "timeout", "to", "token", "too", "unable", "unauthorized", "unexpected", "unknown", "unset", "unsupported",
		"updated", "used", "user", "using", "value", "was", "will", "with", "wrong", "you", "your", "changed", "created", "denied", "accepted",
		"authentication", "context", "connection", "request", "response", "server", "crypto", "no", "renewed", "valid":
		return true
	}
	return false
}
