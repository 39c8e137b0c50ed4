package identity

// private does not judge here: what Go calls a file's mode says nothing of its
// access list. Keys are guarded by the list of the folder that they lie in.
func private(what, name string) error { return nil }
