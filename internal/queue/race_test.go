//go:build race

package queue

// The race detector makes each ten times as long.
const (
	histories = 300
	bitStride = 13
)
