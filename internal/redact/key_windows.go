package redact

import "io/fs"

// private does not judge here: what Go calls a file's mode says nothing of its
// access list. The key is guarded by the list of the folder that it lies in.
func private(string, fs.FileInfo) error { return nil }
