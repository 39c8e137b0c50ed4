// Command dictionary makes a zstd dictionary for package wire, out of frames such
// as agents send. The frames are made up: the golden events of the collectors with
// other numbers, names and lengths of lists, so nothing of any machine gets into
// the dictionary, and the same sources give the same bytes.
//
// A dictionary that was shipped never changes. After the events have changed
// enough to pay for it, a new one gets a new id (make dictionary ID=59906) and a
// line in package wire.
package main

import (
	"flag"
	"fmt"
	"log"
	"math/rand/v2"
	"os"

	"github.com/klauspost/compress/zstd"
)

const (
	dictBytes    = 8 << 10 // twice as much gains nothing more
	segmentBytes = 600     // of one piece of the dictionary, about a member of a list with its neighbours
	frames       = 600
)

func main() {
	id := flag.Uint("id", 0, "of the dictionary, 32768 to 65535, which no other has had")
	root := flag.String("root", ".", "the folder of the sources")
	out := flag.String("o", "", "the file to write; it must not be there yet")
	flag.Parse()
	log.SetFlags(0)
	log.SetPrefix("dictionary: ")
	if err := run(uint32(*id), *root, *out); err != nil {
		log.Fatal(err)
	}
}

func run(id uint32, root, out string) error {
	if id < 32768 || id > 65535 {
		return fmt.Errorf("id is %d, want 32768 to 65535: below is for registered ones, above takes two bytes more", id)
	}
	g, err := readGoldens(root)
	if err != nil {
		return err
	}
	dict, err := train(id, g.frames(1))
	if err != nil {
		return err
	}
	f, err := os.OpenFile(out, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return err
	}
	_, err = f.Write(dict)
	if end := f.Close(); err == nil {
		err = end
	}
	if err != nil {
		return err
	}
	return tell(dict, g.frames(2)) // which it has not seen
}

// frames returns made up frames, the same ones for the same seed.
func (g goldens) frames(seed uint64) (list [][]byte) {
	m := machine{golden: g, rand: rand.New(rand.NewPCG(seed, 0))}
	for range frames {
		list = append(list, m.frame())
	}
	return list
}

// train returns a dictionary with the pieces that most frames have, and with the
// tables of the encoder for what is left of them.
func train(id uint32, samples [][]byte) ([]byte, error) {
	return zstd.BuildDict(zstd.BuildDictOptions{
		ID: id, Contents: samples, History: cover(samples, dictBytes, segmentBytes), Offsets: [3]int{1, 4, 8}, Level: zstd.SpeedFastest,
	})
}

// tell prints what the dictionary gains.
func tell(dict []byte, samples [][]byte) error {
	size := func(o ...zstd.EOption) (n int, err error) {
		e, err := zstd.NewWriter(nil, append(o, zstd.WithEncoderLevel(zstd.SpeedFastest))...)
		for _, s := range samples {
			if err == nil {
				n += len(e.EncodeAll(s, nil))
			}
		}
		return n, err
	}
	without, err := size()
	if err != nil {
		return err
	}
	with, err := size(zstd.WithEncoderDict(dict))
	fmt.Printf("%d bytes; other frames: %d bytes without, %d with, %.1f %%\n", len(dict), without, with, 100*float64(with)/float64(without)-100)
	return err
}
