package xpath

import (
	"slices"
	"strings"
)

// Compile reads an expression. Its error is an *Error.
func Compile(expr string) (*Expr, error) {
	p := &parser{s: expr}
	switch {
	case len(expr) > MaxLength:
		return nil, p.fail(0, "", "the expression has more than %d bytes", MaxLength)
	case strings.TrimSpace(expr) == "":
		return nil, p.fail(0, "write * for all events", "the expression is empty")
	case strings.HasPrefix(strings.TrimSpace(expr), "<"):
		return nil, p.fail(0, "write only what stands in one of its Select elements, with < for &lt;", "this is XML, perhaps a structured query")
	}
	if err := p.next(); err != nil {
		return nil, err
	}
	root, err := p.condition()
	if err != nil {
		return nil, err
	}
	if p.token.kind != atEnd {
		return nil, p.unexpected("the end, and, or or")
	}
	return &Expr{root}, nil
}

// A parser reads an expression from left to right and never goes back.
type parser struct {
	s     string
	i     int // behind token
	token token
	depth int
	steps []*step // those in whose predicates it is
}

// unexpected says what should stand where the token does.
func (p *parser) unexpected(want string) error {
	fix := ""
	if low := strings.ToLower(p.token.text); p.token.kind == aName && (low == "and" || low == "or") {
		fix = "write " + low
	}
	return p.fail(p.token.start, fix, "%s where %s should stand", p.token, want)
}

// eat goes on if the token is that mark.
func (p *parser) eat(mark string) (bool, error) {
	if !p.token.is(mark) {
		return false, nil
	}
	return true, p.next()
}

func (p *parser) must(mark string) error {
	if ok, err := p.eat(mark); ok || err != nil {
		return err
	}
	return p.unexpected(mark)
}

// enter goes into brackets.
func (p *parser) enter() error {
	if p.depth++; p.depth > maxDepth {
		return p.fail(p.token.start, "", "brackets are nested more than %d deep", maxDepth)
	}
	return p.next()
}

// condition reads tests joined by or.
func (p *parser) condition() (test, error) {
	list, err := p.joined("or", func() (test, error) {
		list, err := p.joined("and", p.unit)
		if len(list) == 1 {
			return list[0], err
		}
		return and(list), err
	})
	if len(list) == 1 {
		return list[0], err
	}
	return or(list), err
}

func (p *parser) joined(word string, part func() (test, error)) ([]test, error) {
	var list []test
	for {
		t, err := part()
		if err != nil {
			return nil, err
		}
		list = append(list, t)
		if p.token.kind != aName || p.token.text != word {
			return list, nil
		}
		if err := p.next(); err != nil {
			return nil, err
		}
	}
}

// unit reads a test that is not joined to others.
func (p *parser) unit() (test, error) {
	if !p.token.is("(") {
		return p.comparison()
	}
	if err := p.enter(); err != nil {
		return nil, err
	}
	t, err := p.condition()
	if err != nil {
		return nil, err
	}
	p.depth--
	if err := p.must(")"); err != nil {
		return nil, err
	}
	if p.operator() != "" || p.token.is("[") || p.token.is("/") {
		return nil, p.fail(p.token.start, "write it within them: (Level=1 or Level=2)", "%s behind what stands in parentheses", p.token)
	}
	return t, nil
}

func (p *parser) operator() operator {
	if op := operator(p.token.text); p.token.kind == aMark && turned[op] != "" {
		return op
	}
	return ""
}

// An operand is one side of a comparison, or what stands alone: one of these.
type operand struct {
	at      int
	path    []step
	literal *token
	call    string // position, band, timediff
	leaf    leaf   // of band and timediff, which ask something of path
}

func (p *parser) comparison() (test, error) {
	left, err := p.operand()
	if err != nil {
		return nil, err
	}
	op := p.operator()
	if op == "" {
		return p.alone(left)
	}
	if err := p.next(); err != nil {
		return nil, err
	}
	right, err := p.operand()
	if err != nil {
		return nil, err
	}
	if p.operator() != "" {
		return nil, p.fail(p.token.start, "join two comparisons with and", "a comparison is compared")
	}
	if left.literal != nil {
		left, right, op = right, left, turned[op]
	}
	return p.compare(left, op, right)
}

// alone makes a test of an operand that is not compared.
func (p *parser) alone(o operand) (test, error) {
	switch {
	case o.literal != nil:
		return nil, p.fail(o.at, "name the element that it is compared with: EventID=4624", "%s is not compared with anything", *o.literal)
	case o.call == "position":
		return nil, p.fail(o.at, "write position()=1", "position() is not compared with anything")
	case o.call == "timediff":
		return nil, p.fail(o.at, "write timediff(@SystemTime) <= 86400000, which is a day", "timediff() is not compared with anything")
	case o.leaf == nil:
		o.leaf = exists{}
	}
	return &found{o.path, o.leaf}, nil
}

// compare makes a test of two operands, of which the second should be a literal.
func (p *parser) compare(o operand, op operator, with operand) (test, error) {
	switch {
	case with.literal == nil:
		return nil, p.fail(with.at, "compare each with a number or with a text in quotes", "two elements are compared with each other")
	case o.literal != nil:
		return nil, p.fail(with.at, "name an element or an attribute on one side", "two values are compared with each other")
	case o.call == "band":
		return nil, p.fail(with.at, "leave out the comparison", "band() is true or false and is not compared")
	case o.call == "":
		l := newLiteral(with.literal.text, with.literal.kind == aNumber)
		return &found{o.path, &compared{op, l}}, nil
	}
	n, ok := numberOf([]byte(with.literal.text))
	if !ok {
		return nil, p.fail(with.at, "", "%s() is compared with %s, which is not a number", o.call, *with.literal)
	}
	if o.call == "position" {
		if n.fraction != nil || n.negative {
			return nil, p.fail(with.at, "", "position() is compared with what is not a whole number")
		}
		return counted{op, n.whole}, nil
	}
	d := o.leaf.(*dated)
	d.op, d.number = op, n
	return &found{o.path, d}, nil
}

func (p *parser) operand() (operand, error) {
	t := p.token
	o := operand{at: t.start}
	switch {
	case t.kind == aNumber || t.kind == aLiteral:
		o.literal = &t
		return o, p.next()
	case t.kind == aName || t.is("*") || t.is("@"):
		if p.calls() {
			return p.call(o)
		}
		path, err := p.path()
		o.path = path
		return o, err
	case t.is("/"):
		return o, p.fail(t.start, "leave it out: Event/System or *", "Windows takes no path from /")
	}
	return o, p.unexpected("an element, an attribute or a value")
}

// instead says what to write for functions that Windows does not have.
var instead = map[string]string{
	"not":  "turn the comparison round: Level!=4",
	"text": "name the element itself: Data='x'",
	"last": "write the number",
}

var functions = []string{"position", "band", "timediff"}

// noFunction says that the name at the token is none that may be called there.
func (p *parser) noFunction() error {
	at, name := p.token.start, p.token.text
	switch fix := instead[name]; {
	case name == "text": // MS-EVEN6 has it; nobody knows what Windows makes of it
		return p.fail(at, fix, "text() is not taken here")
	case fix != "":
		return p.fail(at, fix, "Windows has no %s()", name)
	case slices.Contains(functions, name):
		return p.fail(at, "write it in brackets: System[band(Keywords,1)]", "%s() where the name of an element or an attribute should stand", name)
	}
	return p.fail(at, "the functions are position(), band(Keywords,1) and timediff(@SystemTime)", "Windows has no %.30s()", name)
}

// calls reports whether the name at the token is that of a function.
func (p *parser) calls() bool {
	return p.token.kind == aName && strings.HasPrefix(strings.TrimLeft(p.s[p.i:], blanks), "(")
}

func (p *parser) call(o operand) (operand, error) {
	if o.call = p.token.text; !slices.Contains(functions, o.call) {
		return o, p.noFunction()
	}
	if err := p.next(); err != nil {
		return o, err
	}
	if err := p.enter(); err != nil { // the parenthesis
		return o, err
	}
	var err error
	switch o.call {
	case "position":
		err = p.counts(o.at)
	case "band":
		err = p.band(&o)
	case "timediff":
		err = p.timediff(&o)
	}
	if err != nil {
		return o, err
	}
	p.depth--
	return o, p.must(")")
}

// counts notes that the step whose predicate this is asks for the position.
func (p *parser) counts(at int) error {
	if len(p.steps) == 0 {
		return p.fail(at, "write it in brackets behind an element: Data[position()=1]", "position() of what?")
	}
	p.steps[len(p.steps)-1].counts = at + 1
	return nil
}

func (p *parser) band(o *operand) error {
	a, b, err := p.pair(o)
	if err != nil {
		return err
	}
	if a.literal != nil && b != nil {
		a, b = b, a
	}
	if a.path == nil || b == nil || b.literal == nil {
		return p.fail(o.at, "write band(Keywords,9007199254740992)", "band() takes an element or an attribute, and a number")
	}
	bits, ok := bitsOf([]byte(b.literal.text))
	if !ok {
		return p.fail(b.at, "", "%s is not a whole number of 64 bits", *b.literal)
	}
	o.path, o.leaf = a.path, masked{bits}
	return nil
}

func (p *parser) timediff(o *operand) error {
	a, b, err := p.pair(o)
	if err != nil {
		return err
	}
	d := &dated{isNow: b == nil}
	if a.literal != nil && b != nil {
		a, b, d.second = b, a, true
	}
	if a.path == nil || b != nil && b.literal == nil {
		return p.fail(o.at, "write timediff(@SystemTime)", "timediff() takes an element or an attribute, and may take a time")
	}
	if b != nil {
		text := []byte(b.literal.text)
		n, isNumber := numberOf(text)
		t, ok := instantOf(text)
		if isNumber && n.fraction == nil && !n.negative && n.whole < 1<<62 {
			t, ok = int64(n.whole), true // a FILETIME
		}
		if !ok {
			return p.fail(b.at, "write '2026-11-24T00:00:00.000Z' or a FILETIME", "%s is not a time", *b.literal)
		}
		d.other = t
	}
	o.path, o.leaf = a.path, d
	return nil
}

// pair reads one or two operands of a call; b is nil where there is one.
func (p *parser) pair(o *operand) (a, b *operand, err error) {
	for _, to := range []**operand{&a, &b} {
		at := p.token.start
		each, err := p.operand()
		if err != nil {
			return nil, nil, err
		}
		if *to = &each; each.call != "" {
			return nil, nil, p.fail(at, "", "%s() in %s()", each.call, o.call)
		}
		if more, err := p.eat(","); !more || err != nil {
			return a, b, err
		}
	}
	return nil, nil, p.unexpected("the end of " + o.call + "()")
}

// path reads steps, from the document where it is in no predicate.
func (p *parser) path() ([]step, error) {
	at, outside := p.token, len(p.steps) == 0
	var steps []step
	for {
		s, err := p.step()
		if err != nil {
			return nil, err
		}
		if len(steps) == 0 && outside && (s.attribute || s.name != "*" && s.name != "Event") {
			return nil, p.fail(at.start, "write it within *[…]", "an expression begins with * or Event")
		}
		if len(steps) == 0 && !outside && !s.attribute {
			p.steps[len(p.steps)-1].deeper = true
		}
		steps = append(steps, s)
		more, err := p.eat("/")
		if err != nil {
			return nil, err
		}
		if !more {
			return steps, p.leaves(steps)
		}
		if s.attribute {
			return nil, p.fail(p.token.start, "", "an attribute has nothing below it")
		}
	}
}

// leaves sees that only elements are counted that hold no others: Windows counts
// no more.
func (p *parser) leaves(steps []step) error {
	for i, s := range steps {
		inner := s.deeper || i+1 < len(steps) && !steps[i+1].attribute || i == 0 && len(p.steps) == 0
		if s.counts != 0 && inner {
			return p.fail(s.counts-1, "", "Windows counts only elements that hold no others")
		}
	}
	return nil
}

func (p *parser) step() (s step, err error) {
	if s.attribute, err = p.axis(); err != nil {
		return s, err
	}
	if p.token.kind != aName && !p.token.is("*") {
		return s, p.unexpected("the name of an element or an attribute")
	}
	if p.calls() {
		return s, p.noFunction()
	}
	s.name = p.token.text
	if err := p.next(); err != nil {
		return s, err
	}
	if s.attribute && p.token.is("[") {
		return s, p.fail(p.token.start, "put the condition behind the element: TimeCreated[@SystemTime>='2026-01-01T00:00:00Z']", "a condition behind an attribute")
	}
	for p.token.is("[") {
		t, err := p.predicate(&s)
		if err != nil {
			return s, err
		}
		s.predicates = append(s.predicates, t)
	}
	return s, nil
}

// axis reads @ or the long name of an axis, of which there are two.
func (p *parser) axis() (attribute bool, err error) {
	if attribute, err = p.eat("@"); attribute || err != nil {
		return attribute, err
	}
	if p.token.kind != aName || !strings.HasPrefix(strings.TrimLeft(p.s[p.i:], blanks), "::") {
		return false, nil
	}
	if attribute = p.token.text == "attribute"; !attribute && p.token.text != "child" {
		return false, p.fail(p.token.start, "", "Windows goes to children and attributes only, not to %.30s::", p.token.text)
	}
	if err := p.next(); err != nil { // the name
		return false, err
	}
	return attribute, p.next() // the colons
}

// predicate reads a condition in brackets behind a step, or a number for the
// position.
func (p *parser) predicate(s *step) (test, error) {
	p.steps = append(p.steps, s)
	if err := p.enter(); err != nil { // the bracket
		return nil, err
	}
	t, err := p.index(s)
	if t == nil && err == nil {
		t, err = p.condition()
	}
	if err != nil {
		return nil, err
	}
	p.steps = p.steps[:len(p.steps)-1]
	p.depth--
	return t, p.must("]")
}

// index reads a number alone in brackets; t is nil where there is none.
func (p *parser) index(s *step) (t test, err error) {
	number := p.token
	if number.kind != aNumber || !strings.HasPrefix(strings.TrimLeft(p.s[p.i:], blanks), "]") {
		return nil, nil
	}
	n, _ := numberOf([]byte(number.text))
	if n.fraction != nil {
		return nil, p.fail(number.start, "", "%s is not a position", number)
	}
	s.counts = number.start + 1
	return counted{"=", n.whole}, p.next()
}
