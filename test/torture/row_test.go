//go:build torture && linux

package main

// A row is a line of the table at the end.
type row struct {
	What                         string
	Many                         int
	Assigned, Received, Declared uint64
	Replayed                     uint64
	Lost, Repeated               int
	Undeclared, Wrong            int
	Seconds                      float64
	Note                         string
}
