package redact

import "strings"

// flag deals with the - at i that begins a word: --password x, and what a short
// flag of a known program means.
func (c *scan) flag(i int) int {
	s := c.s
	from := i + 1
	if from < len(s) && s[from] == '-' {
		from++
	}
	end := span(s, from, word|dot)
	if end == from {
		return i
	}
	if end < len(s) && (s[end] == '=' || s[end] == ':') {
		return c.joined(i, from, end)
	}
	if n, _ := secretName(s, end); n != nil && !n.strict && !n.line && !n.url {
		return c.next(end, n.kind)
	}
	if from == i+1 {
		return c.short(i, end)
	}
	switch s[from:end] {
	case "user", "proxy-user", "auth", "basic-auth", "userpass":
		return c.behindColon(end)
	}
	return i
}

// joined deals with --user=name:password; --password=x is an assignment like others.
func (c *scan) joined(i, from, end int) int {
	switch c.s[from:end] {
	case "user", "proxy-user", "auth", "basic-auth":
		return c.afterColon(end+1, ':')
	}
	if from == i+1 {
		return c.short(i, end)
	}
	return i
}

// next takes the word that follows the flag that ends at end.
func (c *scan) next(end int, kind string) int {
	p := gap(c.s, end)
	if p == end || p == len(c.s) {
		return end
	}
	from, to, quoted := c.operand(p)
	v := c.s[from:to]
	if harmless(v) || !quoted && (v[0] == '-' || v[0] == '(' || v[0] == '=' || v[0] == '&' || v[0] == '|' || v[0] == '>') {
		return p
	}
	c.hit(from, to, kind)
	return to
}

// gap returns where the word behind end begins, which in a list is "--flag", "word".
func gap(s string, end int) int {
	p := end
	if p+1 < len(s) && (s[p] == '"' || s[p] == '\'') && (s[p+1] == ',' || s[p+1] == ' ') {
		p++
	}
	for p < len(s) && p-end < 16 && (s[p] == ' ' || s[p] == '\t' || s[p] == ',' || s[p] == 0) {
		p++
	}
	return p
}

// behindColon takes the password of a user:password that follows a flag.
func (c *scan) behindColon(end int) int {
	p := gap(c.s, end)
	if p == end || p == len(c.s) {
		return end
	}
	return c.afterColon(p, ':')
}

func (c *scan) afterColon(p int, sign byte) int {
	from, to, _ := c.operand(p)
	at := strings.IndexByte(c.s[from:to], sign)
	if at < 0 || harmless(c.s[from+at+1:to]) || strings.HasPrefix(c.s[from+at:to], "://") {
		return p
	}
	c.hit(from+at+1, to, "user-password")
	return to
}

// How a program takes its password.
const (
	apart    = 1 << iota // -p x
	attached             // -px
	colon                // -u user:x
	percent              // -U user%x
	login                // only behind the word login
)

// A program that takes a password by a flag that means other things elsewhere.
type program struct {
	flags string
	how   int
}

var programs = map[string]program{
	"mysql": {"p", attached}, "mysqldump": {"p", attached}, "mysqladmin": {"p", attached}, "mysqlimport": {"p", attached},
	"mariadb": {"p", attached}, "mariadb-dump": {"p", attached}, "mariadb-admin": {"p", attached}, "mysqlcheck": {"p", attached},
	"sshpass": {"p", apart | attached}, "psexec": {"p", apart}, "psexec64": {"p", apart},
	"curl": {"uU", colon | attached}, "http": {"a", colon}, "https": {"a", colon},
	"redis-cli": {"a", apart}, "mongo": {"p", apart}, "mongosh": {"p", apart}, "mongodump": {"p", apart}, "mongorestore": {"p", apart},
	"ldapsearch": {"w", apart}, "ldapmodify": {"w", apart}, "ldapadd": {"w", apart}, "ldapdelete": {"w", apart}, "ldapwhoami": {"w", apart}, "ldappasswd": {"ws", apart},
	"sqlcmd": {"P", apart | attached}, "osql": {"P", apart | attached}, "isql": {"P", apart | attached}, "bcp": {"P", apart | attached},
	"zip": {"P", apart}, "unzip": {"P", apart}, "7z": {"p", attached}, "7za": {"p", attached}, "rar": {"p", attached}, "unrar": {"p", attached},
	"docker": {"p", apart | login}, "podman": {"p", apart | login}, "nerdctl": {"p", apart | login}, "az": {"p", apart | login}, "oc": {"p", apart | login}, "helm": {"p", apart | login},
	"smbclient": {"U", percent}, "rpcclient": {"U", percent}, "winexe": {"U", percent}, "smbmap": {"p", apart},
	"mosquitto_pub": {"P", apart}, "mosquitto_sub": {"P", apart}, //nolint:misspell // the name of a program
	"ipmitool": {"P", apart}, "snmpwalk": {"cAX", apart}, "snmpget": {"cAX", apart},
	"evil-winrm": {"p", apart}, "crackmapexec": {"p", apart}, "netexec": {"p", apart}, "rdesktop": {"p", apart}, "rabbitmqadmin": {"p", apart},
	"useradd": {"p", apart}, "usermod": {"p", apart}, "openssl": {"kK", apart},
	"schtasks": {"p", apart}, "xfreerdp": {"p", attached}, "net": {"", 0}, "net1": {"", 0}, "sqlplus": {"", 0},
}

// A command remembers to which program the words at one place of the text
// belong. It goes forward only, so that all flags together cost one pass.
type command struct {
	at      int // what lies before was looked at
	known   bool
	program program
	login   bool
}

// advance looks at the words up to end.
func (m *command) advance(c *scan, end int) {
	s := c.s
	for m.at < end {
		switch ch := s[m.at]; {
		case ch == ';' || ch == '|' || ch == '\n' || ch == '&':
			m.known, m.login = false, false
			m.at++
		case is(ch, word) && (m.at == 0 || !is(s[m.at-1], word)):
			to := span(s, m.at, word)
			m.see(c, m.at, to)
			m.at = to
		default:
			m.at++
		}
	}
}

// see looks at one word.
func (m *command) see(c *scan, from, to int) {
	s := c.s
	if m.known {
		m.login = m.login || s[from:to] == "login"
		return
	}
	var lowered [16]byte
	if to-from > len(lowered) || to < len(s) && s[to] == '=' {
		return
	}
	for i := from; i < to; i++ {
		lowered[i-from] = fold(s[i])
	}
	p, ok := programs[string(lowered[:to-from])]
	end := to
	if ok && prefixFold(s[end:], ".exe") {
		end += len(".exe")
	}
	if !ok || end < len(s) && s[end] != ' ' && s[end] != '"' && s[end] != '\'' && s[end] != 0 && s[end] != '\t' {
		return
	}
	m.known, m.program = true, p
	switch string(lowered[:to-from]) {
	case "net", "net1":
		c.net(end)
	case "sqlplus":
		c.sqlplus(end)
	}
}

// short deals with -p at i, if the program that it is a flag of takes a password so.
func (c *scan) short(i, end int) int {
	s := c.s
	letter := s[i+1]
	if strings.IndexByte("pPuUaAwscXkK", letter) < 0 {
		return i
	}
	if s[i+1:end] == "pw" { // plink, pscp
		return c.next(end, "command-password")
	}
	c.cmd.advance(c, i)
	m := &c.cmd
	if !m.known || strings.IndexByte(m.program.flags, letter) < 0 || m.program.how&login != 0 && !m.login {
		return i
	}
	alone := end == i+2 && (end == len(s) || s[end] == ' ' || s[end] == '\t' || s[end] == 0 || gap(s, end) > end)
	switch how := m.program.how; {
	case how&colon != 0 && alone:
		return c.behindColon(end)
	case how&colon != 0 && how&attached != 0:
		return c.afterColon(i+2, ':')
	case how&percent != 0:
		p := gap(s, i+2)
		return c.afterColon(p, '%')
	case how&apart != 0 && alone:
		return c.next(end, "command-password")
	case how&attached != 0 && !alone:
		return c.attached(i + 2)
	}
	return i
}

func (c *scan) attached(p int) int {
	s := c.s
	if s[p] == ':' || s[p] == '=' {
		p++
	}
	from, to, _ := c.operand(p)
	if harmless(s[from:to]) {
		return to
	}
	c.hit(from, to, "command-password")
	return to
}

// slashFlag deals with a flag of Windows that i is in: /p:x, /rp x.
func (c *scan) slashFlag(i int) int {
	s := c.s
	slash := max(0, i-6) + strings.LastIndexByte(s[max(0, i-6):i], '/')
	if slash < max(1, i-6) || !wordStart(s[slash-1]) {
		return i
	}
	end := span(s, slash+1, letter)
	switch name := s[slash:end]; {
	case strings.EqualFold(name, "/rp"):
		return c.next(end, "command-password")
	case strings.EqualFold(name, "/p") && end < len(s):
		c.cmd.advance(c, slash)
		if c.cmd.known && strings.IndexByte(c.cmd.program.flags, 'p') >= 0 {
			if s[end] == ' ' {
				return c.next(end, "command-password")
			}
			return c.attached(end)
		}
	case strings.EqualFold(name, "/user"), strings.EqualFold(name, "/add"):
		c.cmd.advance(c, slash)
	}
	return i
}

// mostArguments bounds how far behind a program its password is looked for.
const mostArguments = 12

// net deals with net user NAME PASSWORD and net use \\HOST\SHARE PASSWORD.
func (c *scan) net(p int) int {
	verb, p := c.argument(p)
	user := strings.EqualFold(verb, "user")
	if !user && !strings.EqualFold(verb, "use") {
		return p
	}
	named := false
	for range mostArguments {
		arg, end := c.argument(p)
		from := end - len(arg)
		p = end
		switch {
		case arg == "" || strings.IndexByte(">&|;", arg[0]) >= 0:
			return p
		case arg[0] == '/' || arg == "*" || arg[0] == '\\' || len(arg) == 2 && arg[1] == ':':
			continue
		case user && !named:
			named = true
		case !harmless(strings.Trim(arg, `"`)):
			c.hit(from, end, "command-password")
			return p
		}
	}
	return p
}

// argument returns the word that begins behind p, and where it ends.
func (c *scan) argument(p int) (string, int) {
	s := c.s
	for p < len(s) && (s[p] == ' ' || s[p] == '\t' || s[p] == 0) {
		p++
	}
	end := p
	if p < len(s) && s[p] == '"' {
		end = closing(s, p+1, '"', 0)
		return s[p:min(end+1, len(s))], min(end+1, len(s))
	}
	for end < len(s) && s[end] > ' ' && s[end] != '"' {
		end++
	}
	return s[p:end], end
}

// sqlplus deals with sqlplus USER/PASSWORD@DATABASE.
func (c *scan) sqlplus(p int) {
	for range mostArguments {
		arg, end := c.argument(p)
		if arg == "" {
			return
		}
		slash := strings.IndexByte(arg, '/')
		if slash > 0 && arg[0] != '-' && arg[0] != '@' {
			to := end
			if at := strings.LastIndexByte(arg, '@'); at > slash {
				to = end - len(arg) + at
			}
			if from := end - len(arg) + slash + 1; !harmless(c.s[from:to]) {
				c.hit(from, to, "oracle-password")
			}
			return
		}
		p = end
	}
}

// secureString deals with ConvertTo-SecureString 'x' -AsPlainText; i is its -.
func (c *scan) secureString(i int) int {
	p := i + len("-SecureString")
	for range 6 {
		p = gap(c.s, p)
		if p >= len(c.s) || c.s[p] != '-' {
			break
		}
		p = span(c.s, p, word)
	}
	if p >= len(c.s) || c.s[p] == '(' || c.s[p] == '|' {
		return i
	}
	from, to, _ := c.operand(p)
	v := c.s[from:to]
	if harmless(v) || v[0] == '$' && c.s[p] == '$' {
		return i
	}
	c.hit(from, to, "secure-string")
	return to
}
