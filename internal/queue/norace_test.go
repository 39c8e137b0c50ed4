//go:build !race && !windows

package queue

const (
	histories = 8000
	bitStride = 1
)
