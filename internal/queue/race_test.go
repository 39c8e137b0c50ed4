//go:build race || windows

package queue

// The race detector makes each ten times as long. What these do happens in memory,
// the same on every system, so the whole of it on one is enough.
const (
	histories = 300
	bitStride = 13
)
