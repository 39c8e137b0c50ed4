package main

import (
	"bytes"
	"cmp"
	"debug/pe"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
)

// The kinds of resources (winuser.h, RT_*) and the language of all of them.
const (
	kindIcon      = 3
	kindIconGroup = 14
	kindVersion   = 16
	kindManifest  = 24
	english       = 0x409
)

// A resource is one leaf of the tree in the section .rsrc.
type resource struct {
	kind, id uint32
	data     []byte
}

// Sizes of the tree's parts (PE format, "The .rsrc Section").
const (
	directorySize = 16
	entrySize     = 8
	leafSize      = 16
	subdirectory  = 1 << 31
)

// tree lays out the resources for a section that is loaded at address: the kinds,
// below each its ids, below each the one language, then the leaves, then the data.
func tree(list []resource, address uint32) []byte {
	slices.SortStableFunc(list, func(a, b resource) int {
		return cmp.Or(cmp.Compare(a.kind, b.kind), cmp.Compare(a.id, b.id))
	})
	var kinds []uint32
	count := map[uint32]int{}
	for _, r := range list {
		if count[r.kind]++; count[r.kind] == 1 {
			kinds = append(kinds, r.kind)
		}
	}
	ids := directorySize + entrySize*len(kinds)
	languages := ids + directorySize*len(kinds) + entrySize*len(list)
	leaves := languages + (directorySize+entrySize)*len(list)
	data := leaves + leafSize*len(list)

	out := directory(nil, len(kinds))
	for _, k := range kinds {
		out = entry(out, k, subdirectory|ids)
		ids += directorySize + entrySize*count[k]
	}
	next := 0
	for _, k := range kinds {
		out = directory(out, count[k])
		for range count[k] {
			out = entry(out, list[next].id, subdirectory|languages)
			languages += directorySize + entrySize
			next++
		}
	}
	for range list {
		out = entry(directory(out, 1), english, leaves)
		leaves += leafSize
	}
	for _, r := range list {
		out = words(out, address+uint32(data), uint32(len(r.data)), 0, 0)
		data = up(data+len(r.data), 8)
	}
	for _, r := range list {
		out = append(out, r.data...)
		out = append(out, make([]byte, up(len(out), 8)-len(out))...)
	}
	return out
}

func directory(out []byte, entries int) []byte {
	return words(out, 0, 0, 0, uint32(entries)<<16) // all by id, none by name
}

func entry(out []byte, id uint32, offset int) []byte { return words(out, id, uint32(offset)) }

func words(out []byte, list ...uint32) []byte {
	for _, w := range list {
		out = binary.LittleEndian.AppendUint32(out, w)
	}
	return out
}

func up[T int | uint32](n, to T) T { return (n + to - 1) / to * to }

// Offsets in the headers (PE format). Those of the optional header are of PE32+,
// which is what a 64-bit program has.
const (
	offHeader      = 0x3c // where the offset of the signature stands
	offSections    = 6    // from the signature on
	offOptional    = 24
	offInitialized = 8 // from the optional header on
	offImageSize   = 56
	offChecksum    = 64
	offResources   = 112 + 8*pe.IMAGE_DIRECTORY_ENTRY_RESOURCE
	sectionHeader  = 40
)

// add returns the program with a section of resources behind its others. It
// refuses one that has resources, and one that is signed: what is behind the
// sections would lose its place.
func add(exe []byte, list []resource) ([]byte, error) {
	f, err := pe.NewFile(bytes.NewReader(exe))
	if err != nil {
		return nil, err
	}
	opt, ok := f.OptionalHeader.(*pe.OptionalHeader64)
	if !ok {
		return nil, errors.New("not a program of 64 bits")
	}
	if opt.DataDirectory[pe.IMAGE_DIRECTORY_ENTRY_RESOURCE].Size > 0 {
		return nil, errors.New("has resources already")
	}
	if opt.DataDirectory[pe.IMAGE_DIRECTORY_ENTRY_SECURITY].Size > 0 {
		return nil, errors.New("is signed: resources come first")
	}
	headers := int(binary.LittleEndian.Uint32(exe[offHeader:]))
	optional := headers + offOptional
	free := optional + int(f.SizeOfOptionalHeader) + sectionHeader*len(f.Sections)
	if free+sectionHeader > int(opt.SizeOfHeaders) {
		return nil, fmt.Errorf("no room for the header of a section: %d of %d bytes are taken", free, opt.SizeOfHeaders)
	}
	var address uint32
	for _, s := range f.Sections {
		address = max(address, up(s.VirtualAddress+max(s.VirtualSize, s.Size), opt.SectionAlignment))
	}

	section := tree(list, address)
	size := uint32(len(section))
	exe = append(slices.Clone(exe), make([]byte, up(len(exe), int(opt.FileAlignment))-len(exe))...)
	start := uint32(len(exe))
	exe = append(exe, section...)
	exe = append(exe, make([]byte, up(len(exe), int(opt.FileAlignment))-len(exe))...)

	header := append([]byte(".rsrc\x00\x00\x00"), words(nil, size, address, up(size, opt.FileAlignment), start, 0, 0, 0,
		pe.IMAGE_SCN_CNT_INITIALIZED_DATA|pe.IMAGE_SCN_MEM_READ)...)
	copy(exe[free:], header)
	put := func(at int, v uint32) { binary.LittleEndian.PutUint32(exe[at:], v) }
	binary.LittleEndian.PutUint16(exe[headers+offSections:], uint16(len(f.Sections)+1))
	put(optional+offInitialized, opt.SizeOfInitializedData+up(size, opt.FileAlignment))
	put(optional+offImageSize, up(address+size, opt.SectionAlignment))
	put(optional+offResources, address)
	put(optional+offResources+4, size)
	put(optional+offChecksum, 0) // of drivers only; the Go linker writes none either
	return exe, nil
}
