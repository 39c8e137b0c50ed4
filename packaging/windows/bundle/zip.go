package main

import (
	"archive/zip"
	"errors"
	"os"
	"path"
	"path/filepath"
	"strings"
	"time"
)

// papers are what lies beside the programs, by their names in the repository.
var papers = [][2]string{
	{"LICENSE", "LICENSE.txt"},
	{"README.md", "README.md"},
	{"configs/agent.example.toml", "agent.example.toml"},
	{"configs/server.example.toml", "server.example.toml"},
}

// zipFolder makes a .zip of the programs in dir and of the papers, in one folder,
// so that it unpacks to one.
func zipFolder(file, dir string, at time.Time) error {
	programs, err := filepath.Glob(filepath.Join(dir, "*.exe"))
	if err != nil {
		return err
	}
	if len(programs) == 0 {
		return errors.New("no programs in " + dir)
	}
	out, err := os.Create(file)
	if err != nil {
		return err
	}
	w := zip.NewWriter(out)
	top := strings.TrimSuffix(filepath.Base(file), ".zip")
	add := func(from, to string) error {
		content, err := os.ReadFile(from)
		if err != nil {
			return err
		}
		part, err := w.CreateHeader(&zip.FileHeader{Name: path.Join(top, to), Method: zip.Deflate, Modified: at})
		if err != nil {
			return err
		}
		_, err = part.Write(content)
		return err
	}
	for _, p := range programs { // Glob sorts
		err = errors.Join(err, add(p, filepath.Base(p)))
	}
	for _, p := range papers {
		err = errors.Join(err, add(filepath.FromSlash(p[0]), p[1]))
	}
	return errors.Join(err, w.Close(), out.Close())
}
