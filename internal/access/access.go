// Package access says whether others could read or change what a program relies
// on, and refuses it where they could.
//
// There are three kinds. A [Secret] is a private key: nobody else may read it. A
// [Guarded] file decides about what the program does, such as its configuration
// or the authority that it trusts: nobody else may change it. A [Folder] is one
// of ours, with all that is below.
//
// Others are all but the account that the process runs as and those that can do
// everything anyway: root, on Windows SYSTEM and the administrators. A right to
// write to a folder on the way to a file is as good as one to the file, unless
// the folder is sticky, so the whole way is judged, and every link on it.
// Secrets and guarded files may be links, as certificates of Kubernetes and
// certbot are; in a folder of ours there is none.
//
// What passed cannot be exchanged by others between the check and its use: that
// takes a right that the check has not found.
package access

import (
	"errors"
	"io/fs"
)

// ErrAccess is every error of this package that is about rights.
var ErrAccess = errors.New("others have rights that they must not have")

// An Error says which right others have, and how to take it from them.
type Error struct {
	What    string // what it is for: "client key"
	Path    string
	Problem string // follows the path
	Remedy  string
}

func (e *Error) Error() string {
	return e.What + " " + e.Path + " " + e.Problem + ": " + e.Remedy
}

// Is reports that the error is about rights.
func (e *Error) Is(target error) bool { return target == ErrAccess || target == fs.ErrPermission }
