package main

import (
	"bytes"
	"encoding/binary"
	"image"
	"image/color"
	"image/png"
)

// The sizes of the icon in pixels. The largest is stored as PNG, as Windows
// expects it, the others as bitmaps, which the oldest dialogs read too.
var sizes = []int{16, 24, 32, 48, 256}

// The drawing, on a square of 1024 units: a beat that ends in a dot, which has
// arrived. It is all integers, or another processor would round another way.
var (
	ground = color.NRGBA{0x0f, 0x3d, 0x4c, 0xff}
	line   = color.NRGBA{0xf4, 0xf7, 0xf6, 0xff}
	dot    = color.NRGBA{0xf2, 0x9f, 0x3d, 0xff}
	beat   = []image.Point{{150, 560}, {330, 560}, {450, 270}, {590, 770}, {690, 500}, {800, 500}}
)

const (
	unit      = 1024
	corner    = 200
	thickness = 44
	dotRadius = 92
	samples   = 8 // a pixel's edge, for smooth borders
)

// at returns the color of the drawing at a point, or none outside of it.
func at(p image.Point) (color.NRGBA, bool) {
	in := image.Rect(corner, corner, unit-corner, unit-corner)
	nearest := image.Pt(min(max(p.X, in.Min.X), in.Max.X), min(max(p.Y, in.Min.Y), in.Max.Y))
	if !near(p, nearest, nearest, corner) {
		return color.NRGBA{}, false
	}
	end := beat[len(beat)-1]
	if near(p, end, end, dotRadius) {
		return dot, true
	}
	for i, to := range beat[1:] {
		if near(p, beat[i], to, thickness) {
			return line, true
		}
	}
	return ground, true
}

// near reports whether p is within r of the line from a to b.
func near(p, a, b image.Point, r int) bool {
	along, off := b.Sub(a), p.Sub(a)
	length := along.X*along.X + along.Y*along.Y
	t := off.X*along.X + off.Y*along.Y
	switch {
	case t <= 0:
		return off.X*off.X+off.Y*off.Y <= r*r
	case t >= length:
		off = p.Sub(b)
		return off.X*off.X+off.Y*off.Y <= r*r
	}
	cross := along.X*off.Y - along.Y*off.X
	return cross*cross <= r*r*length
}

func draw(size int) *image.NRGBA {
	img := image.NewNRGBA(image.Rect(0, 0, size, size))
	for y := range size {
		for x := range size {
			img.SetNRGBA(x, y, pixel(x, y, size))
		}
	}
	return img
}

// pixel is the mean of the drawing over one pixel.
func pixel(x, y, size int) color.NRGBA {
	var r, g, b, n int
	for i := range samples * samples {
		c, ok := at(image.Pt(
			((x*samples+i%samples)*2+1)*unit/(2*size*samples),
			((y*samples+i/samples)*2+1)*unit/(2*size*samples)))
		if ok {
			r, g, b, n = r+int(c.R), g+int(c.G), b+int(c.B), n+1
		}
	}
	if n == 0 {
		return color.NRGBA{}
	}
	return color.NRGBA{uint8(r / n), uint8(g / n), uint8(b / n), uint8(n * 255 / (samples * samples))}
}

// images are the icon in each size, as an .ico file and a program hold it.
func images() (list [][]byte) {
	for _, size := range sizes {
		img := draw(size)
		if size < 256 {
			list = append(list, bitmap(img))
			continue
		}
		var out bytes.Buffer
		if err := png.Encode(&out, img); err != nil {
			panic(err) // a buffer takes everything
		}
		list = append(list, out.Bytes())
	}
	return list
}

// bitmap is a BITMAPINFOHEADER, the rows from the last to the first, and a mask
// that hides nothing: the colors say themselves what shines through.
func bitmap(img *image.NRGBA) []byte {
	size := img.Rect.Dx()
	mask := up(size, 32) / 8 * size
	out := words(nil, 40, uint32(size), uint32(2*size), 32<<16|1, 0, uint32(4*size*size+mask), 0, 0, 0, 0)
	for y := size - 1; y >= 0; y-- {
		for x := range size {
			c := img.NRGBAAt(x, y)
			out = append(out, c.B, c.G, c.R, c.A)
		}
	}
	return append(out, make([]byte, mask)...)
}

// index is the head of an .ico file or of a group of icons; where says of the i-th
// image, of that size, where it is.
func index(list [][]byte, where func(out []byte, i int) []byte) []byte {
	out := []byte{0, 0, 1, 0, byte(len(list)), 0}
	for i, img := range list {
		edge := byte(sizes[i]) // 256 is written as 0
		out = append(out, edge, edge, 0, 0, 1, 0, 32, 0)
		out = binary.LittleEndian.AppendUint32(out, uint32(len(img)))
		out = where(out, i)
	}
	return out
}

func encodeIcon() []byte {
	list := images()
	next := 6 + 16*len(list)
	out := index(list, func(out []byte, i int) []byte {
		at := next
		next += len(list[i])
		return binary.LittleEndian.AppendUint32(out, uint32(at))
	})
	return append(out, bytes.Join(list, nil)...)
}

// icons are the images of a program and the group that Windows chooses from.
func icons() (out []resource) {
	list := images()
	for i, img := range list {
		out = append(out, resource{kindIcon, uint32(i + 1), img})
	}
	group := index(list, func(out []byte, i int) []byte {
		return binary.LittleEndian.AppendUint16(out, uint16(i+1))
	})
	return append(out, resource{kindIconGroup, 1, group})
}
