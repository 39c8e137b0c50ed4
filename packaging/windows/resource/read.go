package main

import (
	"debug/pe"
	"encoding/binary"
	"errors"
	"fmt"
	"unicode/utf16"
)

var errDamaged = errors.New("the resources are damaged")

// read returns the resources of the program in file.
func read(file string) ([]resource, error) {
	f, err := pe.Open(file)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	s := f.Section(".rsrc")
	if s == nil {
		return nil, fmt.Errorf("%s has no resources", file)
	}
	data, err := s.Data()
	if err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	var list []resource
	err = walk(data, 0, nil, func(path []uint32, leaf []byte) error {
		from := int64(binary.LittleEndian.Uint32(leaf)) - int64(s.VirtualAddress)
		to := from + int64(binary.LittleEndian.Uint32(leaf[4:]))
		if from < 0 || to > int64(len(data)) {
			return errDamaged
		}
		list = append(list, resource{path[0], path[1], data[from:to]})
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	return list, nil
}

// walk calls found with each leaf below the directory at offset: kind, id and
// language are its path.
func walk(data []byte, offset int, path []uint32, found func(path []uint32, leaf []byte) error) error {
	if offset+directorySize > len(data) || len(path) > 2 {
		return errDamaged
	}
	entries := int(binary.LittleEndian.Uint16(data[offset+12:])) + int(binary.LittleEndian.Uint16(data[offset+14:]))
	for i := range entries {
		at := offset + directorySize + entrySize*i
		if at+entrySize > len(data) {
			return errDamaged
		}
		id, to := binary.LittleEndian.Uint32(data[at:]), binary.LittleEndian.Uint32(data[at+4:])
		below := append(path[:len(path):len(path)], id)
		var err error
		if to&subdirectory != 0 {
			err = walk(data, int(to&^subdirectory), below, found)
		} else if int(to)+leafSize > len(data) || len(below) != 3 {
			err = errDamaged
		} else {
			err = found(below, data[to:])
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// parseVersion returns the number and the texts of a VS_VERSIONINFO.
func parseVersion(b []byte) ([][2]string, error) {
	var list [][2]string
	err := blocks(b, func(key string, value []byte, isText bool) {
		switch {
		case key == "VS_VERSION_INFO" && len(value) >= 16:
			high, low := binary.LittleEndian.Uint32(value[8:]), binary.LittleEndian.Uint32(value[12:])
			n := number{uint16(high >> 16), uint16(high), uint16(low >> 16), uint16(low)}
			list = append(list, [2]string{"Number", n.String()})
		case isText && len(value) > 0:
			list = append(list, [2]string{key, wideText(value)})
		}
	})
	return list, err
}

// blocks calls found with each node, those above before those below.
func blocks(b []byte, found func(key string, value []byte, isText bool)) error {
	for len(b) > 0 {
		if len(b) < 6 {
			return errDamaged
		}
		length, size := int(binary.LittleEndian.Uint16(b)), int(binary.LittleEndian.Uint16(b[2:]))
		isText := binary.LittleEndian.Uint16(b[4:]) == 1
		if length < 6 || length > len(b) {
			return errDamaged
		}
		key := wideText(b[6:length])
		start := up(6+2*len(utf16.Encode([]rune(key)))+2, 4)
		if isText {
			size *= 2
		}
		if start+size > length {
			return errDamaged
		}
		found(key, b[start:start+size], isText)
		if below := up(start+size, 4); below < length {
			if err := blocks(b[below:length], found); err != nil {
				return err
			}
		}
		b = b[min(up(length, 4), len(b)):]
	}
	return nil
}

// wideText is the text before the first zero.
func wideText(b []byte) string {
	var wide []uint16
	for ; len(b) >= 2; b = b[2:] {
		c := binary.LittleEndian.Uint16(b)
		if c == 0 {
			break
		}
		wide = append(wide, c)
	}
	return string(utf16.Decode(wide))
}
