package redact

import (
	"slices"
	"strings"
)

// Mark stands where something was taken out.
const Mark = "[redacted]"

// Secrets takes out of s what is known to be a secret, and says of which kinds
// it was ("" for none): "jwt", or "jwt,password". It takes time in proportion
// to the length of s, allocates nothing where it finds nothing, and given its own
// result finds nothing.
func Secrets(s string) (clean, kinds string) {
	var c scan
	return c.clean(s)
}

// A hit is a part of the text that goes.
type hit struct {
	from, to int
	kind     string
}

// A scan looks through one text.
type scan struct {
	s       string
	home    func(name string) string // what stands for a name in the path of a home; nil where they stay
	command bool                     // the text is a command line
	hits    []hit
	cmd     command // what the short flags belong to

	// What was looked at once and is not looked at again, so that no text costs
	// more than a few passes.
	word     extent // the last word of value
	base64   extent // the last run of jwt
	notPuTTY bool
}

// An extent is a part of the text that ends the same wherever in it one begins.
type extent struct{ from, to int }

func (e extent) has(i int) bool { return e.from <= i && i < e.to }

// maxPasses bounds how often a text is looked through. What is taken out can
// make something else look like a secret; texts where that goes on are made for
// it, and go as a whole.
const maxPasses = 8

func (c *scan) clean(s string) (clean, kinds string) {
	for range maxPasses {
		*c = scan{s: s, home: c.home, command: c.command, hits: c.hits[:0]}
		c.run()
		if len(c.hits) == 0 {
			return s, kinds
		}
		next := c.replace(&kinds)
		if next == s {
			return s, kinds
		}
		s = next
	}
	return Mark, kinds
}

// replace returns the text without the hits, and adds their kinds.
func (c *scan) replace(kinds *string) string {
	slices.SortStableFunc(c.hits, func(a, b hit) int { return a.from - b.from })
	var b strings.Builder
	at := 0
	for _, h := range c.hits {
		gone := c.s[h.from:h.to]
		if h.from >= at {
			b.WriteString(c.s[at:h.from])
			if h.kind == homeKind {
				b.WriteString(c.home(gone))
			} else {
				b.WriteString(Mark)
			}
		}
		if h.kind != homeKind && gone != Mark {
			addKind(kinds, h.kind)
		}
		at = max(at, h.to)
	}
	b.WriteString(c.s[at:])
	return b.String()
}

// maxKinds bounds how many kinds are told of one text.
const maxKinds = 4

// addKind adds a kind to a list divided by commas.
func addKind(kinds *string, kind string) {
	if *kinds == "" {
		*kinds = kind
		return
	}
	n := 0
	for k := range strings.SplitSeq(*kinds, ",") {
		if n++; k == kind || n == maxKinds {
			return
		}
	}
	*kinds += "," + kind
}

func (c *scan) hit(from, to int, kind string) {
	c.hits = append(c.hits, hit{from, to, kind})
}

// What three bytes in a row can be a part of. The scan looks at every byte once,
// with the two before it: almost all triples are part of nothing, and one look
// into a table of those tells. What is left is looked at closely.
const (
	assigns  = 1 << iota // = : > ( or %3D behind a name
	ends                 // _ - . at the end of a token's prefix
	slashes              // / or \ behind a folder of homes
	address              // the last of ://
	flags                // what follows a - that begins a word
	spoken               // the w of password
	encoded              // the J of eyJ, and LS0 of a key in base64
	capitals             // keys that begin with A, and what else has capitals
	ways                 // bearer, basic, auth plain
	dashes               // -----BEGIN
	quotes               // by '
	windows              // /user: /p: /rp
	bot                  // .G of a token of Discord
)

// codes number the bytes that are told apart in pairs: both cases of a letter are
// one, digits are one, and so is all that means nothing.
const (
	start = 27 + iota // of a word: brackets, commas, ends of lines, the beginning
	number
	others // the first of the signs that are themselves
)

const signs = "-_ \"'\\:/]=."

// A class is the code of a byte, and from bit 8 on what it can be the last of.
var classes = func() (t [256]uint32) {
	for c := range t {
		switch b := byte(c); {
		case 'a' <= fold(b) && fold(b) <= 'z':
			t[c] = uint32(fold(b)-'a') + 1
		case '0' <= b && b <= '9':
			t[c] = number
		case strings.IndexByte(signs, b) >= 0:
			t[c] = uint32(others + strings.IndexByte(signs, b))
		case strings.IndexByte("[(,;\n\r\t\x00`{", b) >= 0:
			t[c] = start
		}
	}
	for _, last := range []struct {
		bytes string
		can   uint32
	}{
		{"=:>%(", assigns}, {"_-.", ends}, {`/\`, slashes}, {"/", address}, {"wW", spoken}, {"J0", encoded}, {"ICzABc~", capitals},
		{"aAcCiI", ways}, {"B", dashes}, {`'"`, quotes}, {": dD", windows}, {"GXYZ", bot},
		{"-abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ", flags},
	} {
		for _, c := range []byte(last.bytes) {
			t[c] |= last.can << 8
		}
	}
	return t
}()

// pairs tell what two bytes can be followed by, by their codes.
var pairs = func() (t [64 * 64]uint32) {
	set := func(pair string, can uint32) { t[pairOf(pair[0], pair[1])] |= can << 8 }
	for _, each := range tokens {
		set(each.prefix[each.end-2:each.end], ends)
	}
	for _, n := range names {
		last := n.name[len(n.name)-2:]
		set(last, assigns)
		for _, sign := range []string{`"`, `'`, ` `, `]`, `\`} { // between the name and the = there may be these
			set(last[1:]+sign, assigns)
		}
	}
	for _, pair := range []string{`" `, `' `, `\"`, `']`, `"]`, "ue", "in"} { // value= and thin:
		set(pair, assigns)
	}
	for _, pair := range []string{"me", "rs", "gs"} { // home, Users, Documents and Settings
		set(pair, slashes)
	}
	for _, before := range []byte("\n '\":=[") {
		set(string(before)+"-", flags)
	}
	for _, pair := range []string{"AK", "AS", "AB", "AC", "AI", "AT", ":A", "0Q"} {
		set(pair, capitals)
	}
	for c := range 256 {
		set(string([]byte{byte(c), '.'}), bot)
	}
	set(":/", address)
	set("ss", spoken)
	set("ey", encoded)
	set("LS", encoded)
	set("be", ways) // bearer
	set("si", ways) // basic
	set("la", ways) // plain
	set("--", dashes)
	set("y ", quotes)  // identified by '
	set("er", windows) // /user:
	set("/p", windows) // /p:
	set("rp", windows) // /rp
	set("/a", windows) // /add
	set("to", ends)    // ConvertTo-SecureString
	set("ss", ends)    // secret_access_key x
	set("ty", ends)    // PuTTY-User-Key-File
	return t
}()

func pairOf(a, b byte) int { return int(classes[a]&63)<<6 | int(classes[b]&63) }

// groups are things by a pair of bytes.
type groups[T any] struct {
	at   [64 * 64]uint8 // in list, by pairOf; 0 is empty
	list [][]T
}

func groupsOf[T any](all []T, pair func(*T) string) *groups[T] {
	g := &groups[T]{list: make([][]T, 1)}
	for i := range all {
		p := pair(&all[i])
		at := &g.at[pairOf(p[0], p[1])]
		if *at == 0 {
			*at = uint8(len(g.list))
			g.list = append(g.list, nil)
		}
		g.list[*at] = append(g.list[*at], all[i])
	}
	return g
}

func (g *groups[T]) of(a, b byte) []T { return g.list[g.at[pairOf(a, b)]] }

// run finds the hits.
func (c *scan) run() {
	s := c.s
	var a, b uint32 = start, start
	for i := 0; i < len(s); i++ {
		k := classes[s[i]]
		if can := pairs[(a<<6|b)&(64*64-1)] & k; can != 0 {
			if next := c.look(i, can>>8); next > i+1 {
				i = min(next, len(s)) - 1
				b, k = classes[s[i-1]]&63, classes[s[i]]
			}
		}
		a, b = b, k&63
	}
	if c.command {
		c.cmd.advance(c, len(s))
	}
}

// look looks closely at the place i, where can may begin or end. It returns
// where to go on: i if there was nothing.
func (c *scan) look(i int, can uint32) int {
	next := i
	if can&assigns != 0 {
		next = c.assignment(i)
	}
	if can&ends != 0 && next == i {
		next = c.token(i)
	}
	if can&slashes != 0 && c.home != nil && next == i {
		next = c.homePath(i)
	}
	if can&flags != 0 && next == i {
		next = c.flag(i - 1)
	}
	if can&windows != 0 && next == i {
		next = c.slashFlag(i)
	}
	if can&spoken != 0 && next == i {
		next = c.said(i)
	}
	if can&(address|encoded|capitals|ways|dashes|quotes|bot) != 0 && next == i {
		next = c.begun(i, can)
	}
	return next
}

// begun looks at what is known by how it begins, a few bytes before i.
func (c *scan) begun(i int, can uint32) int {
	s := c.s
	next := i
	switch {
	case can&address != 0 && s[i-1] == '/':
		next = c.url(i - 2)
	case can&encoded != 0 && s[i] == 'J':
		next = c.jwt(i - 2)
	case can&encoded != 0 && strings.HasPrefix(s[i-2:], pemBase64):
		next = c.pem64(i - 2)
	case can&capitals != 0 && s[i] == '~':
		next = c.azureSecret(i)
	case can&capitals != 0 && s[i-2] == ':':
		next = c.telegram(i - 2)
	case can&capitals != 0 && s[i-2] == 'A':
		next = c.upperA(i - 2)
	case can&ways != 0:
		next = c.scheme(i)
	case can&dashes != 0 && i >= 5 && strings.HasPrefix(s[i-5:], pemBegin):
		next = c.pem(i - 5)
	case can&quotes != 0 && i >= 14 && strings.EqualFold(s[i-14:i], "identified by "):
		next = c.quoted(i, "sql-password")
	case can&bot != 0 && i+6 < len(s) && s[i+6] == '.':
		next = c.botToken(i - 1)
	}
	return max(next, i)
}

// wordStart reports whether a word begins behind c.
func wordStart(c byte) bool {
	switch c {
	case ' ', '\t', '\n', '\r', 0, '"', '\'', '`', '[', '(', ',', '=', ':', ';':
		return true
	}
	return false
}

// Sets of characters.
const (
	upper = 1 << iota
	lower
	digit
	hexSet // 0-9 a-f A-F
	dash   // - _
	base64 // + / =
	dot    // . ~
)

const (
	letter = upper | lower
	alnum  = letter | digit
	word   = alnum | dash
)

var chars = func() (t [256]byte) {
	for c := range t {
		switch {
		case 'A' <= c && c <= 'Z':
			t[c] |= upper
		case 'a' <= c && c <= 'z':
			t[c] |= lower
		case '0' <= c && c <= '9':
			t[c] |= digit
		case c == '-' || c == '_':
			t[c] |= dash
		case c == '+' || c == '/' || c == '=':
			t[c] |= base64
		case c == '.' || c == '~':
			t[c] |= dot
		}
		if '0' <= c && c <= '9' || 'a' <= c && c <= 'f' || 'A' <= c && c <= 'F' {
			t[c] |= hexSet
		}
	}
	return t
}()

func is(c, set byte) bool { return chars[c]&set != 0 }

// span returns where the characters of the set that begin at i end.
func span(s string, i int, set byte) int {
	for i < len(s) && chars[s[i]]&set != 0 {
		i++
	}
	return i
}

// holds tells which sets s has characters of.
func holds(s string) (sets byte) {
	for i := range len(s) {
		sets |= chars[s[i]]
	}
	return sets
}

// random reports whether s looks like nothing that people write: letters and
// digits, or letters of both cases not only at the beginning of words.
func random(s string) bool {
	h := holds(s)
	if h&letter != 0 && h&digit != 0 {
		return true
	}
	return len(s) > 1 && holds(s[1:])&upper != 0 && h&lower != 0
}

func fold(c byte) byte {
	if 'A' <= c && c <= 'Z' {
		c += 'a' - 'A'
	}
	return c
}

func prefixFold(s, prefix string) bool {
	return len(s) >= len(prefix) && strings.EqualFold(s[:len(prefix)], prefix)
}
