package config

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"unicode"
	"unicode/utf16"

	"github.com/rea-agent/rea/internal/durable"
)

// maxFile bounds what is read: a configuration is a few kilobytes.
const maxFile = 1 << 20

// file finds, reads and takes the file, if there is one.
func (l *loader) file(src Sources) {
	name, named := src.File, src.File != ""
	for _, entry := range src.Environ {
		if v, text, ok := l.variable(entry); ok && v == l.spec.FileVariable() && !named && text != "" {
			name, named = text, true
		}
	}
	if !named {
		name = src.DefaultFile
	}
	if name == "" {
		return
	}
	data, err := read(name, src.Again)
	if errors.Is(err, fs.ErrNotExist) && !named {
		return
	}
	l.loaded.File = name
	where := Origin{Layer: FromFile, Name: name}
	if err == nil {
		data, err = utf8Text(data)
	}
	if err != nil {
		fault := unreadable(err)
		l.problem("", where, fault.What, fault.Fix)
		l.incomplete()
		return
	}
	d := document{loader: l, name: name, dir: filepath.Dir(name), data: data}
	d.walk()
}

// incomplete notes that every key may have had another value, so that nothing
// is said of combinations.
func (l *loader) incomplete() {
	for _, name := range l.names {
		l.bad[name] = true
	}
}

// read reads the file. Who reloads a configuration has often just replaced it.
func read(name string, again bool) (data []byte, err error) {
	if again && !Rereadable(name) { // before it is opened: a pipe would wait for who writes to it
		return nil, &Fault{What: "this is no file that can be read again", Fix: "put a file in its place"}
	}
	err = durable.Patiently(func() error {
		data, err = readNow(name)
		return err
	})
	if again && err == nil && len(data) == 0 {
		return nil, &Fault{What: "the file is empty: somebody may be about to write it", Fix: "write a comment into it where the defaults are meant"}
	}
	return data, err
}

// Rereadable reports whether a file of configuration can be read again. A pipe, such
// as the shell makes for <(command), gives what is in it once.
func Rereadable(name string) bool {
	info, err := os.Stat(name)
	return err != nil || info.Mode().IsRegular() || info.IsDir() // opening tells what is wrong with those
}

func readNow(name string) ([]byte, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close() // only read from: nothing is lost
	if info, err := f.Stat(); err == nil && info.IsDir() {
		return nil, &Fault{What: "this is a folder", Fix: "name the file in it"}
	}
	data, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err == nil && len(data) > maxFile {
		return nil, &Fault{What: "the file is larger than 1 MiB", Fix: "see that this is the configuration"}
	}
	return data, err
}

func unreadable(err error) *Fault {
	if f, ok := errors.AsType[*Fault](err); ok {
		return f
	}
	if e, ok := errors.AsType[*fs.PathError](err); ok {
		err = e.Err // the path stands in front already
	}
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return &Fault{What: "there is no such file", Fix: "write the path in full, or name no file for the defaults"}
	case errors.Is(err, fs.ErrPermission):
		return &Fault{What: "the file may not be read: " + err.Error(), Fix: "let the user that this runs as read it"}
	}
	return &Fault{What: "the file cannot be read: " + err.Error()}
}

// utf8Text takes a byte order mark off, and makes UTF-8 of the UTF-16 that the
// redirection of PowerShell 5 and the "Unicode" of Notepad write.
func utf8Text(data []byte) ([]byte, error) {
	switch {
	case bytes.HasPrefix(data, []byte("\xef\xbb\xbf")):
		return data[3:], nil
	case bytes.HasPrefix(data, []byte("\xff\xfe")):
		return fromUTF16(data[2:], binary.LittleEndian)
	case bytes.HasPrefix(data, []byte("\xfe\xff")):
		return fromUTF16(data[2:], binary.BigEndian)
	case bytes.IndexByte(data[:min(len(data), 4)], 0) >= 0:
		return nil, &Fault{What: "this is not text, or UTF-16 without a mark that says so", Fix: "save the file as UTF-8"}
	}
	return data, nil
}

func fromUTF16(data []byte, order binary.ByteOrder) ([]byte, error) {
	units := make([]uint16, len(data)/2)
	for i := range units {
		units[i] = order.Uint16(data[2*i:])
	}
	text := string(utf16.Decode(units))
	if len(data)%2 != 0 || strings.ContainsRune(text, unicode.ReplacementChar) {
		return nil, &Fault{What: "this begins like UTF-16 and is not", Fix: "save the file as UTF-8"}
	}
	return []byte(text), nil
}
