//go:build !race

package queue

const (
	histories = 8000
	bitStride = 1
)
