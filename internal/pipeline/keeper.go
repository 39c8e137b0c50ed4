package pipeline

import (
	"context"
	"crypto/rand"
	"encoding/hex"
)

// SinkKeeper makes a Keeper of a sink, for an agent that sends nothing: lines
// are as safe as the sink makes them when its Write returns. Each run is a
// stream of its own, numbered from 1.
func SinkKeeper(s Sink) Keeper {
	var id [16]byte
	_, _ = rand.Read(id[:]) // never fails: it ends the program instead
	return &sinkKeeper{s, hex.EncodeToString(id[:])}
}

type sinkKeeper struct {
	sink   Sink
	stream string
}

func (k *sinkKeeper) Stream() string { return k.stream }
func (k *sinkKeeper) Next() uint64   { return 1 }

// Most is what a sink writes in one piece, so that an error is about all of it.
func (k *sinkKeeper) Most() int { return 64 << 10 }

func (k *sinkKeeper) Keep(lines []byte, _ uint64, n int) (func(context.Context) error, error) {
	return nil, k.sink.Write(lines, n)
}
