//go:build !unix && !windows

package cli

import "os"

func terminal(*os.File) (columns int, ok bool) { return 0, false }

func paints(*os.File) bool { return false }
