package main

import (
	"encoding/binary"
	"slices"
)

// The pieces that are counted are of so many bytes, and counted in a table of so
// many places.
const (
	pieceBytes = 8
	tableBits  = 22
)

// cover returns about size bytes out of samples, in segments of at most so many
// bytes: again and again the one whose pieces are in the most samples, of those
// that no segment has yet. So does zstd --train (COVER). The best segment comes
// last, where offsets are short.
func cover(samples [][]byte, size, segment int) []byte {
	c := count(samples)
	all, parts := slices.Concat(samples...), max(1, size/segment/4)
	each := len(all) / parts
	var segments [][]byte
	for n, i, idle := 0, 0, 0; n < size && idle < parts; i++ {
		from := i % parts * each
		best := c.best(all[from:from+each], segment)
		if len(best) == 0 {
			idle++
			continue
		}
		best = best[:min(len(best), size-n)]
		c.take(best)
		n, idle = n+len(best), 0
		segments = append(segments, best)
	}
	slices.Reverse(segments)
	return slices.Concat(segments...)
}

// counts says how many samples have a piece, by its hash.
type counts []int32

func hash(b []byte) uint64 {
	return binary.LittleEndian.Uint64(b) * 0x9e3779b97f4a7c15 >> (64 - tableBits)
}

func count(samples [][]byte) counts {
	c, seen := make(counts, 1<<tableBits), make([]int32, 1<<tableBits)
	for i, s := range samples {
		for ; len(s) >= pieceBytes; s = s[1:] {
			if h := hash(s); seen[h] <= int32(i) {
				seen[h] = int32(i) + 1
				c[h]++
			}
		}
	}
	return c
}

// best returns the segment of b that has the most, without what nobody else has
// at its ends.
func (c counts) best(b []byte, segment int) []byte {
	in := make(map[uint64]int, segment)
	var score, most int64
	at := 0
	for i := 0; i+pieceBytes <= len(b); i++ {
		h := hash(b[i:])
		if in[h]++; in[h] == 1 {
			score += int64(c[h])
		}
		if first := i + pieceBytes - segment - 1; first >= 0 {
			h := hash(b[first:])
			if in[h]--; in[h] == 0 {
				score -= int64(c[h])
				delete(in, h)
			}
		}
		if score > most {
			most, at = score, max(0, i+pieceBytes-segment)
		}
	}
	if most == 0 {
		return nil
	}
	s := b[at:min(len(b), at+segment)]
	for c[hash(s)] < 2 && len(s) > pieceBytes {
		s = s[1:]
	}
	for c[hash(s[len(s)-pieceBytes:])] < 2 && len(s) > pieceBytes {
		s = s[:len(s)-1]
	}
	return s
}

// take forgets the pieces of s.
func (c counts) take(s []byte) {
	for ; len(s) >= pieceBytes; s = s[1:] {
		c[hash(s)] = 0
	}
}
