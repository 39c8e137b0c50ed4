package xpath

import (
	"encoding/xml"
	"errors"
	"io"
	"strings"
	"testing"
	"time"
)

// tree makes the tree of a record with encoding/xml.
func tree(t testing.TB, text string) *Tree {
	t.Helper()
	tr := new(Tree)
	open := []int32{tr.Reset()}
	var runs []string
	for d := xml.NewDecoder(strings.NewReader(text)); ; {
		tok, err := d.Token()
		if errors.Is(err, io.EOF) {
			return tr
		}
		if err != nil {
			t.Fatalf("%v: %s", err, text)
		}
		switch tok := tok.(type) {
		case xml.StartElement:
			n, err := tr.Element(open[len(open)-1], []byte(tok.Name.Local))
			if err != nil {
				t.Fatal(err)
			}
			for _, a := range tok.Attr {
				if a.Name.Local != "xmlns" && a.Name.Space != "xmlns" {
					_ = tr.Attribute(n, []byte(a.Name.Local), []byte(a.Value))
				}
			}
			open, runs = append(open, n), append(runs, "")
		case xml.CharData:
			if len(runs) > 0 {
				runs[len(runs)-1] += string(tok)
			}
		case xml.EndElement:
			last := len(runs) - 1
			tr.Text(open[last+1], []byte(runs[last]))
			open, runs = open[:last+1], runs[:last]
		}
	}
}

// records are what is asked, each under one letter.
var records = map[byte]string{
	'l': `<Event xmlns='http://schemas.microsoft.com/win/2004/08/events/event'><System>
		<Provider Name='Microsoft-Windows-Security-Auditing' Guid='{54849625-5478-4994-A5BA-3E3B0328C30D}'/>
		<EventID>4624</EventID><Version>2</Version><Level>0</Level><Task>12544</Task><Opcode>0</Opcode>
		<Keywords>0x8020000000000000</Keywords><TimeCreated SystemTime='2026-11-23T11:00:00.500000000Z'/>
		<EventRecordID>1000</EventRecordID><Correlation/><Execution ProcessID='712' ThreadID='4'/>
		<Channel>Security</Channel><Computer>dc1.corp</Computer><Security/></System>
		<EventData><Data Name='SubjectUserSid'>S-1-5-18</Data><Data Name='TargetUserName'>ann</Data><Data Name='LogonType'>3</Data>
		<Data Name='Status'>0x3e7</Data><Data Name='Empty'></Data><Data Name='KeyLength'>-5</Data></EventData></Event>`,
	'f': `<Event><System><Provider Name='Microsoft-Windows-Security-Auditing'/><EventID>4625</EventID><Level>1</Level>
		<Keywords>0x8010000000000000</Keywords><TimeCreated SystemTime='2026-11-21T12:00:00Z'/><Channel>Security</Channel></System>
		<EventData><Data Name='TargetUserName'>bob</Data><Data Name='LogonType'>10</Data></EventData></Event>`,
	'c': `<Event><System><Provider Name='EventLog'/><EventID Qualifiers='32768'>6009</EventID><Level>4</Level>
		<Keywords>0x80000000000000</Keywords><TimeCreated SystemTime='2026-11-23T12:00:01.0000001Z'/><Channel>System</Channel></System>
		<EventData><Data>10.00.</Data><Data>17763</Data><Data></Data><Data>Multiprocessor Free</Data><Data>0</Data></EventData></Event>`,
	'u': `<Event><System><Provider Name="Print'r"/><EventID>307</EventID><Level>3</Level><Channel>Print</Channel></System>
		<UserData><DocumentPrinted xmlns='x'><PrinterName>MyPrinter</PrinterName><Size>1.50</Size></DocumentPrinted></UserData></Event>`,
}

var now = time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)

// selected returns the letters of the records that an expression selects.
func selected(t testing.TB, expr string) string {
	t.Helper()
	e, err := Compile(expr)
	if err != nil {
		t.Fatalf("%s: %v", expr, err)
	}
	list := ""
	for _, letter := range []byte("lfcu") {
		if e.Selects(tree(t, records[letter]), now) {
			list += string(letter)
		}
	}
	return list
}

func TestExpressionsSelectWhatTheySay(t *testing.T) {
	for _, test := range []struct{ expr, want string }{
		// Microsoft's examples, and what Event Viewer makes of a custom view.
		{"*", "lfcu"},
		{"Event", "lfcu"},
		{"*[UserData/DocumentPrinted]", "u"},
		{"*[UserData/LowOnMemory]", ""},
		{"*[System/Level=1]", "f"},
		{`*[UserData/*/PrinterName="MyPrinter" and System/Level=3]`, "u"},
		{"*[System[(Level <= 3) and TimeCreated[timediff(@SystemTime) <= 86400000]]]", "l"},
		{"*[System[(Level=1  or Level=2) and (EventID=4624 or EventID=4625)]]", "f"},
		{"*[System[TimeCreated[timediff(@SystemTime) <= 86400000]]]", "lc"},
		{"*[System[Provider[@Name='EventLog' or @Name='Nobody'] and band(Keywords,9007199254740992)]]", ""},
		{"*[System[Provider[@Name='Microsoft-Windows-Security-Auditing' or @Name='Y'] and band(Keywords,9007199254740992)]]", "l"},
		{"*[System[band(Keywords,13510798882111488)]]", "lf"},
		{"*[EventData[Data[@Name='LogonType'] and (Data='3' or Data='10')]]", "lf"},
		{"*[System[TimeCreated[@SystemTime>='2026-11-23T11:00:00.000Z' and @SystemTime<='2026-11-23T12:00:00.999Z']]]", "l"},
		{"*[System[(EventID=4624)]] and *[EventData[Data[@Name='LogonType']='3']]", "l"},
		{"Event/System[EventID=6009]", "c"},
		{"Event/System[EventID=1000] and Event/System[Provider[@Name='x']] or *[System[Level=3]]", "u"},
		{"*[System[EventID>=4624 and EventID<=4625]]", "lf"},
		{"*[System[Security[@UserID]]]", ""},
		{"*[EventData[Data[@Name='TargetUserName']!='ann']]", "f"},

		// Paths.
		{"*/System/EventID=307", "u"},
		{"*/*/EventID=307", "u"},
		{"child::Event/child::System[attribute::x or child::Level=3]", "u"},
		{"\t* [ child :: System / EventID / @ Qualifiers = 32768 ]\n", "c"},
		{"*[System/EventID/@Qualifiers=32768]", "c"},
		{"*[System/EventID[@Qualifiers]]", "c"},
		{"*[System/Execution/@*=712]", "l"},
		{"*[System[Correlation]]", "l"},
		{"*[EventData]", "lfc"},
		{"*[EventData/@Name='LogonType']", ""},
		{"*[EventData/Data/@Name='LogonType']", "lf"},
		{"*[System='']", ""}, // elements that hold others have no text
		{"*[System!='x']", ""},

		// Operators and their binding.
		{"*[System[Level=1 or Level=3 and EventID=307]]", "fu"},
		{"*[System[(Level=1 or Level=3) and EventID=307]]", "u"},
		{"*[System[4624 = EventID]]", "l"},
		{"*[System[4625 > EventID]]", "lu"},
		{"*[System[4625 <= EventID]]", "fc"},
		{"*[System[Level!=4]]", "lfu"},
		{"*[System[EventID < 4624]]", "u"},
		{"*[System[EventID > 4625]]", "c"},

		// Numbers, texts, times and GUIDs.
		{"*[System[EventID='4624']]", "l"},
		{"*[System[EventID=0x1210]]", "l"},
		{"*[System[Keywords='0x8020000000000000']]", "l"},
		{"*[System[Keywords=9232379236109516800]]", "l"},
		{"*[EventData[Data=999]]", "l"},
		{"*[EventData[Data='999']]", "l"},
		{"*[EventData[Data='-5']]", "l"},
		{"*[EventData[Data[@Name='KeyLength']<'-4']]", "l"},
		{"*[EventData[Data[@Name='KeyLength']>'-4']]", ""},
		{"*[EventData[Data='10.0']]", ""},
		{"*[EventData[Data='10.00.']]", "c"},
		{"*[UserData/*[Size=1.5]]", "u"},
		{"*[UserData/*[Size<1.51 and Size>1.4]]", "u"},
		{"*[UserData/*[Size='1.5']]", ""},
		{"*[EventData[Data='Multiprocessor Free']]", "c"},
		{"*[EventData[Data='multiprocessor free']]", ""},
		{"*[EventData[Data>1000]]", "c"}, // 17763; no text is more than a number
		{"*[EventData[Data='']]", "lc"},
		{"*[EventData[Data[@Name='TargetUserName']>'ann']]", "f"},
		{`*[System[Provider[@Name="Print'r"]]]`, "u"},
		{"*[System[Provider[@Guid='{54849625-5478-4994-a5ba-3e3b0328c30d}']]]", "l"},
		{"*[System[Provider[@Guid='{54849625-5478-4994-a5ba-3e3b0328c30e}']]]", ""},
		{"*[System[TimeCreated[@SystemTime='2026-11-23T11:00:00.5Z']]]", "l"},
		{"*[System[TimeCreated[@SystemTime!='2026-11-23T11:00:00.5Z']]]", "fc"},
		{"*[System[Channel!='2026-11-23T11:00:00Z' and Channel!='{54849625-5478-4994-a5ba-3e3b0328c30d}' and Level=3]]", "u"},
		{"*[System[Channel='2026-11-23T11:00:00Z' or Channel='{54849625-5478-4994-a5ba-3e3b0328c30d}']]", ""},

		// Functions.
		{"*[System[TimeCreated[timediff(@SystemTime) < 0]]]", "c"}, // a second ahead
		{"*[System[TimeCreated[timediff(@SystemTime) <= '-1000']]]", "c"},
		{"*[System[TimeCreated[timediff(@SystemTime,'2026-11-23T12:00:00Z') > 3599499]]]", "lf"},
		{"*[System[TimeCreated[timediff('2026-11-23T11:00:00Z',@SystemTime) = 500]]]", "l"},
		{"*[System[TimeCreated[timediff(@SystemTime,134399052005000000) = 0]]]", "l"},
		{"*[System[TimeCreated[500 = timediff(134399052000000000,@SystemTime)]]]", "l"},
		{"*[System[timediff(Level) > 0]]", ""},
		{"*[System[band(36028797018963968,Keywords)]]", "c"},
		{"*[System[band(Level,1)]]", "fu"},
		{"*[System[band(Channel,1)]]", ""},
		{"*[EventData[band(Data[@Name='KeyLength'],0x8000000000000000)]]", "l"},

		// Positions.
		{"*[EventData[Data[2]='17763']]", "c"},
		{"*[EventData[Data[position()=2]='17763']]", "c"},
		{"*[EventData[Data[1]='17763']]", ""},
		{"*[EventData[Data[0]]]", ""},
		{"*[EventData[Data[5]]]", "lc"},
		{"*[EventData/Data[6]]", "l"},
		{"*[EventData[Data[position()>1 and position()<3]='bob']]", ""},
		{"*[EventData[Data[2<=position()]='10']]", "f"},
		{"*[EventData[Data[@Name='LogonType'][1]='3']]", "l"}, // the first of those
		{"*[EventData[Data[3][1]='3']]", "l"},
		{"*[EventData[Data[1][3]]]", ""},
		{"*[EventData[Data[2][1][1][1][1]='17763']]", "c"},
	} {
		if got := selected(t, test.expr); got != test.want {
			t.Errorf("%s selects %q, want %q", test.expr, got, test.want)
		}
	}
}

func TestWhatWindowsDoesNotTakeIsAnErrorWithItsColumn(t *testing.T) {
	deep := "*" + strings.Repeat("[a", maxDepth+1) + strings.Repeat("]", maxDepth+1)
	for _, test := range []struct {
		expr   string
		column int
		what   string
	}{
		{"", 1, "is empty"},
		{" \t", 1, "is empty"},
		{strings.Repeat("*", MaxLength+1), 1, "more than 32768 bytes"},
		{deep, 130, "more than 64 deep"},
		{"*[" + strings.Repeat("(", maxDepth) + "a", 66, "more than 64 deep"},
		{"<QueryList><Query/></QueryList>", 1, "structured query"},
		{"System[EventID=1]", 1, "begins with * or Event"},
		{"* or System", 6, "begins with * or Event"},
		{"@Name", 1, "begins with * or Event"},
		{"/Event", 1, "no path from /"},
		{"Event//Level", 6, "takes no //"},
		{"*[System[EventID=4624]", 23, `the end where ] should stand`},
		{"*[System[EventID=4624]]]", 24, `"]" where the end`},
		{"*[System[(Level=1 or Level=2]]", 29, `"]" where ) should stand`},
		{"*[System[]]", 10, `"]" where an element`},
		{"*[System[Level=]]", 16, `"]" where an element`},
		{"*[System[Level=1 AND Level=2]]", 18, `"AND" where ] should stand`},
		{"*[System[Level==1]]", 15, "== is no comparison"},
		{"*[System[Level=1 && Level=2]]", 18, "&& joins nothing"},
		{"*[System[Level &lt;= 3]]", 16, "as XML writes it"},
		{"*[System[Level=1|Level=2]]", 17, "union"},
		{"*[System[Level+1=2]]", 15, "does not reckon"},
		{"*[System[Level=-1]]", 16, "cannot be negative"},
		{"*[System[Level=$x]]", 16, "no variables"},
		{"*[System[Level=1=1]]", 17, "a comparison is compared"},
		{"*[System[(Level)=1]]", 17, "behind what stands in parentheses"},
		{"*[System[Level=EventID]]", 16, "compared with each other"},
		{"*[System[1=1]]", 10, "two values"},
		{"*[System['x']]", 10, "not compared with anything"},
		{"*[System[Level and 2]]", 20, "not compared with anything"},
		{"*[System[EventID=12345678901234567890123]]", 18, "is not a number"},
		{"*[System[EventID=012]]", 18, "is not a number"},
		{"*[System[EventID=46x4]]", 18, "is not a number"},
		{"*[EventData[Data=5é]]", 18, `"5é" is not a number`},
		{"*[EventData[Data=5日]]", 18, `"5日" is not a number`},
		{"*[System[EventID='4624]]", 18, "does not end"},
		{"*[System[Provider[@Name=“x”]]]", 25, "not a quote"},
		{"*[EventData[Data='ä' and .='x']]", 26, "takes no . for the element"},
		{"*[EventData/../System]", 13, "children and attributes only"},
		{"*[EventData[Data[text()='x']]]", 18, "text() is not taken here"},
		{"*[EventData/Data/text()='x']", 18, "text() is not taken here"},
		{"*[EventData/Data/ text ( )='x']", 19, "text() is not taken here"},
		{"Event/node()", 7, "Windows has no node()"},
		{"*[EventData/band(Data,1)]", 13, "band() where the name of"},
		{"*[System[not(Level=1)]]", 10, "Windows has no not()"},
		{"*[EventData[contains(Data,'x')]]", 13, "Windows has no contains()"},
		{"*[EventData/x:Data]", 13, "no namespaces"},
		{"*[descendant::Data]", 3, "not to descendant::"},
		{"*[System/Provider/@Name[.='x']]", 24, "behind an attribute"},
		{"*[System/Provider/@Name/x]", 25, "nothing below it"},
		{"*[System[band(Keywords)]]", 10, "band() takes"},
		{"*[System[band(Keywords,Level)]]", 10, "band() takes"},
		{"*[System[band(1)]]", 10, "band() takes"},
		{"*[System[band(1,2)]]", 10, "band() takes"},
		{"*[System[band(Keywords,'x')]]", 24, "not a whole number"},
		{"*[System[band(Keywords,1)=1]]", 27, "true or false"},
		{"*[System[band(Keywords,1,2)]]", 26, `where the end of band() should stand`},
		{"*[System[band(timediff(x),1)]]", 15, "timediff() in band()"},
		{"*[System[TimeCreated[timediff(@SystemTime)]]]", 22, "not compared"},
		{"*[System[TimeCreated[timediff(@SystemTime)<'x']]]", 44, "not a number"},
		{"*[System[TimeCreated[timediff(5)<6]]]", 22, "timediff() takes"},
		{"*[System[TimeCreated[timediff(@a,@b)<6]]]", 22, "timediff() takes"},
		{"*[System[TimeCreated[timediff(@a,'now')<6]]]", 34, "is not a time"},
		{"*[System[TimeCreated[timediff(@a)<timediff(@b)]]]", 35, "compared with each other"},
		{"*[EventData[Data[position()]]]", 18, "position() is not compared"},
		{"*[EventData[Data[position()=1.5]]]", 29, "not a whole number"},
		{"*[EventData[Data[1.5]]]", 18, "not a position"},
		{"position()=1", 1, "of what"},
		{"*[1]", 3, "only elements that hold no others"},
		{"*[System[2]/Level=1]", 10, "only elements that hold no others"},
		{"*[System[position()=1 and Level=1]]", 10, "only elements that hold no others"},
		{"*[System[Level=#]]", 16, `'#' means nothing`},
	} {
		_, err := Compile(test.expr)
		e, ok := errors.AsType[*Error](err)
		if !ok {
			t.Errorf("%.60s: %v, want an error in column %d", test.expr, err, test.column)
			continue
		}
		if e.Column != test.column || !strings.Contains(e.What, test.what) {
			t.Errorf("%.60s: %v, want %q in column %d", test.expr, err, test.what, test.column)
		}
	}
}

func TestTheDeepestExpressionIsTaken(t *testing.T) {
	expr := "*" + strings.Repeat("[*", maxDepth) + strings.Repeat("]", maxDepth)
	text := strings.Repeat("<a>", maxDepth+1) + strings.Repeat("</a>", maxDepth+1)
	e, err := Compile(expr)
	if err != nil {
		t.Fatal(err)
	}
	if !e.Selects(tree(t, text), now) {
		t.Error("it does not select a record that is as deep")
	}
}

func TestNumbersAreExact(t *testing.T) {
	for _, test := range []struct {
		a, b string
		want int
	}{
		{"18446744073709551615", "18446744073709551614", 1},
		{"9007199254740993", "9007199254740992", 1},
		{"0xffffffffffffffff", "18446744073709551615", 0},
		{"0x00000010", "16", 0},
		{"-0", "0", 0},
		{"-2", "-1", -1},
		{"-1", "1", -1},
		{"1.5", "1.50", 0},
		{"1.05", "1.5", -1},
		{"-1.5", "-1.4", -1},
	} {
		a, ok1 := numberOf([]byte(test.a))
		b, ok2 := numberOf([]byte(test.b))
		if !ok1 || !ok2 || a.compare(b) != test.want || b.compare(a) != -test.want {
			t.Errorf("%s and %s compare as %d, want %d (%v, %v)", test.a, test.b, a.compare(b), test.want, ok1, ok2)
		}
	}
	for _, no := range []string{"", "-", "x", "007", "18446744073709551616", "0x", "0xg", "0x10000000000000000", "-0x1", "1.", ".5", "1e5", " 1", "1 ", "+1", "1.x", "--1"} {
		if n, ok := numberOf([]byte(no)); ok {
			t.Errorf("%q is the number %v", no, n)
		}
	}
}

func TestAnEmptyTreeIsNotSelected(t *testing.T) {
	e, err := Compile("*")
	if err != nil {
		t.Fatal(err)
	}
	empty := new(Tree)
	if e.Selects(empty, now) || empty.Find("Event") != nil {
		t.Error("it is")
	}
	if empty.Reset(); e.Selects(empty, now) {
		t.Error("a document without an element is")
	}
}

func TestATreeIsBounded(t *testing.T) {
	var tr Tree
	document := tr.Reset()
	for range maxNodes - 1 {
		if _, err := tr.Element(document, nil); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := tr.Element(document, nil); err == nil {
		t.Error("an element more than there may be is taken")
	}
	if err := tr.Attribute(1, nil, nil); err == nil {
		t.Error("an attribute more than there may be is taken")
	}
}

func TestFindGivesTheTextAtTheEndOfAPath(t *testing.T) {
	tr := tree(t, records['l'])
	if got := string(tr.Find("Event", "System", "Channel")); got != "Security" {
		t.Errorf("the channel is %q", got)
	}
	if got := tr.Find("Event", "System", "Provider", "Name"); got != nil {
		t.Errorf("an attribute is found as an element: %q", got)
	}
}

func TestSelectingAllocatesNothing(t *testing.T) {
	e, err := Compile("*[System[Provider[@Name='Microsoft-Windows-Security-Auditing'] and band(Keywords,9007199254740992) and TimeCreated[timediff(@SystemTime) <= 86400000]]] and *[EventData[Data[@Name='LogonType'] and (Data='4' or Data[3]=3)]]")
	if err != nil {
		t.Fatal(err)
	}
	tr := tree(t, records['l'])
	if !e.Selects(tr, now) {
		t.Fatal("it is not selected")
	}
	if n := testing.AllocsPerRun(100, func() { e.Selects(tr, now) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// FuzzCompile: nothing that is written makes reading or asking panic or go on for
// ever, and each error tells a place in the text.
func FuzzCompile(f *testing.F) {
	for _, s := range []string{
		"*", "Event/System[EventID=4]", "*[System[(Level=1  or Level=2) and (EventID=4624 or EventID=4625)]]",
		"*[System[TimeCreated[timediff(@SystemTime) <= 86400000]]]", "*[System[TimeCreated[timediff('2026-11-23T11:00:00Z',@SystemTime) = 500]]]",
		"*[System[Provider[@Name='X' or @Name=\"Y\"] and band(Keywords,9007199254740992)]]",
		"*[EventData[Data[@Name='LogonType'] and (Data='3' or Data='10')]]", "*[EventData[Data[2]='17763' or Data[position()>=0x1]!='']]",
		"*[UserData/*/PrinterName=\"MyPrinter\"]", "child::*[attribute::x]", "*[not(x)]", "<QueryList>", "*[“", "*[a[1.5]]", "*[x='\xff']",
		"*[band(0)]", "*[a[timediff(0)=1]]", "*[" + strings.Repeat("(", 70), "*" + strings.Repeat("[a", 70), "*[Data='-1' or Data<1.5]", "*[System/Provider/@Guid!='{54849625-5478-4994-a5ba-3e3b0328c30d}']",
	} {
		f.Add(s)
	}
	var trees []*Tree
	for _, letter := range []byte("lfcu") {
		trees = append(trees, tree(f, records[letter]))
	}
	f.Fuzz(func(t *testing.T, expr string) {
		e, err := Compile(expr)
		if wrong, ok := errors.AsType[*Error](err); ok {
			if wrong.Column < 1 || wrong.Column > len([]rune(expr))+1 || wrong.What == "" {
				t.Errorf("%q: %v", expr, err)
			}
			return
		} else if err != nil {
			t.Fatalf("%q: %v is no Error", expr, err)
		}
		for _, tr := range trees {
			e.Selects(tr, now)
		}
	})
}
