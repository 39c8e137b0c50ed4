package eventlog

import (
	"encoding/xml"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/rea-agent/rea/internal/xpath"
)

// independentOutline is what Outline should make, made with encoding/xml.
func independentOutline(t testing.TB, text string) *xpath.Tree {
	t.Helper()
	root, err := readElement(xml.NewDecoder(strings.NewReader(text)), nil)
	if err != nil {
		t.Fatalf("encoding/xml: %v\n%s", err, text)
	}
	tree := new(xpath.Tree)
	var put func(parent int32, e *element)
	put = func(parent int32, e *element) {
		n, err := tree.Element(parent, []byte(e.name))
		if err != nil {
			t.Fatal(err)
		}
		for _, a := range e.attrs {
			if err := tree.Attribute(n, []byte(a.Name.Local), []byte(a.Value)); err != nil {
				t.Fatal(err)
			}
		}
		tree.Text(n, []byte(e.text))
		for _, c := range e.children {
			put(n, c)
		}
	}
	put(tree.Reset(), root)
	return tree
}

func TestTheOutlineAgreesWithAnIndependentParse(t *testing.T) {
	var p Parser
	var tree xpath.Tree
	for _, text := range append(sample(t), synthetic(t)...) {
		if err := p.Outline([]byte(text), &tree); err != nil {
			t.Errorf("%v: %s", err, text)
			continue
		}
		want, got := fmt.Sprint(*independentOutline(t, text)), fmt.Sprint(tree) // all of it, nil like empty
		if d := cmp.Diff(want, got); d != "" {
			t.Fatalf("(-encoding/xml +outline):\n%s\n%s", d, text)
		}
	}
}

func TestAnOutlineOfWhatCannotBeReadIsAnError(t *testing.T) {
	var p Parser
	var tree xpath.Tree
	for _, text := range []string{"", "text", "<Event>", "<Event><a></b></Event>", "<Event a>", strings.Repeat("<a>", maxOutline+1) + strings.Repeat("</a>", maxOutline+1)} {
		if err := p.Outline([]byte(text), &tree); err == nil {
			t.Errorf("%.20q has an outline", text)
		}
	}
	deep := strings.Repeat("<a>", maxOutline) + strings.Repeat("</a>", maxOutline)
	if err := p.Outline([]byte(deep), &tree); err != nil {
		t.Errorf("%v, though it is as deep as it may be", err)
	}
}

func TestAnOutlineIsSelectedByItsTextsWithoutReferences(t *testing.T) {
	var p Parser
	var tree xpath.Tree
	e, err := xpath.Compile(`*[EventData[Data[@Name='a<b']="x & y's" and Data='é']]`)
	if err != nil {
		t.Fatal(err)
	}
	text := event1("<EventData><Data Name='a&lt;b'>x &amp; <![CDATA[y]]>&apos;s</Data><Data>&#233;</Data></EventData>")
	if err := p.Outline([]byte(text), &tree); err != nil || !e.Selects(&tree, time.Time{}) {
		t.Errorf("it is not, %v", err)
	}
}
