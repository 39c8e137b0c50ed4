package ship

import (
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/rea-agent/rea/internal/queue"
)

func TestMoveGivesEventsAnotherStreamAndNode(t *testing.T) {
	for name, compress := range map[string]bool{"zstd": true, "plain": false} {
		t.Run(name, func(t *testing.T) {
			open := func() *queue.Queue {
				q, err := queue.Open(queue.Options{Dir: t.TempDir(), MaxBytes: 1 << 20})
				if err != nil {
					t.Fatal(err)
				}
				t.Cleanup(func() { q.Close() })
				return q
			}
			old, fresh := open(), open()
			event := func(node string, q *queue.Queue, seq uint64, n int) string {
				return fmt.Sprintf(`{"v":1,"time":"2026-01-02T03:04:05Z","node":%q,"hostname":"a\",\"node\":\"x","stream":%q,"seq":%d,"kind":"gap","gap":{"n":%d,"stream":%q,"seq":7}}`+"\n",
					node, q.Stream(), seq, n, old.Stream())
			}
			for first := uint64(1); first < 10; first += 3 {
				var lines []byte
				for n := range uint64(3) {
					lines = append(lines, event("lab-7", old, first+n, int(first+n))...)
				}
				if err := (&mover{ctx: t.Context(), fresh: old}).append(lines, compress); err != nil {
					t.Fatal(err)
				}
			}
			if err := old.Ack(5); err != nil {
				t.Fatal(err)
			}
			m, err := Move(t.Context(), old, fresh, "lab-0000007")
			if err != nil || m != (Moved{Events: 4}) {
				t.Fatalf("moved %+v, %v", m, err)
			}
			var got, want string
			records, err := fresh.Peek(nil, 1<<20)
			if err != nil {
				t.Fatal(err)
			}
			for _, r := range records {
				lines, err := new(cutter).decode(r)
				if err != nil {
					t.Fatal(err)
				}
				got += string(lines)
			}
			for n := range 4 {
				want += event("lab-0000007", fresh, uint64(n+1), n+6)
			}
			if d := cmp.Diff(want, got); d != "" {
				t.Errorf("moved (-want +got):\n%s", d)
			}
		})
	}
}
