//go:build !race

package queue

const (
	histories = 3000
	bitStride = 1
)
