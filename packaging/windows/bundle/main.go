// Command bundle makes, of programs and packages that are built, what is published
// with them: a .zip for each architecture, SHA256SUMS, and the manifests by which
// winget and Chocolatey find a release.
//
//	bundle -version v0.1.0 -number 0.1.0.0 -epoch 1700000000 -dir dist/packages
//
// It finds amd64/ and arm64/ with the programs, and the packages, in that folder,
// and the papers in the folder that it runs in. The same input gives the same
// bytes.
package main

import (
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"text/template"
	"time"
)

//go:embed templates
var templates embed.FS

// A release is what the manifests say of one.
type release struct {
	Version string // as winget and Chocolatey have it: digits, and what is behind a -
	Tag     string
	Number  string // that of the package, which Windows shows among the programs
	Date    string
	URL     string // the folder that the files are published in
	MSI     map[string]packaged
}

// A packaged is one .msi.
type packaged struct{ File, SHA256 string }

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "bundle:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	flags := flag.NewFlagSet("bundle", flag.ContinueOnError)
	version := flags.String("version", "", "the version, as git describe says it")
	number := flags.String("number", "", "its number, as the package says it")
	epoch := flags.Int64("epoch", 0, "the time of everything, in seconds since 1970")
	dir := flags.String("dir", "", "where programs and packages are")
	url := flags.String("url", "https://github.com/rea-agent/rea/releases/download", "where releases are published")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if *version == "" || *number == "" || *epoch == 0 || *dir == "" {
		return errors.New("want -version, -number, -epoch and -dir")
	}
	at := time.Unix(*epoch, 0).UTC()
	r := release{
		Version: strings.TrimPrefix(*version, "v"), Tag: *version, Number: *number, Date: at.Format(time.DateOnly),
		URL: *url + "/" + *version, MSI: map[string]packaged{},
	}
	for _, arch := range []string{"amd64", "arm64"} {
		file := fmt.Sprintf("rea-agent-%s-windows-%s.msi", r.Version, arch)
		sum, err := sumOf(filepath.Join(*dir, file))
		if err != nil {
			return err
		}
		r.MSI[arch] = packaged{file, sum}
		if err := zipFolder(filepath.Join(*dir, fmt.Sprintf("rea-%s-windows-%s.zip", r.Version, arch)), filepath.Join(*dir, arch), at); err != nil {
			return err
		}
	}
	if err := r.manifests(*dir); err != nil {
		return err
	}
	return writeSums(*dir)
}

// manifests fills in the templates.
func (r release) manifests(dir string) error {
	for _, m := range []struct{ template, file string }{
		{"winget.version.yaml", "winget/REA.Agent.yaml"},
		{"winget.installer.yaml", "winget/REA.Agent.installer.yaml"},
		{"winget.locale.yaml", "winget/REA.Agent.locale.en-US.yaml"},
		{"chocolatey.nuspec", "chocolatey/rea-agent.nuspec"},
		{"chocolateyinstall.ps1", "chocolatey/tools/chocolateyinstall.ps1"},
		{"chocolateyuninstall.ps1", "chocolatey/tools/chocolateyuninstall.ps1"},
	} {
		t, err := template.New(m.template).Option("missingkey=error").ParseFS(templates, "templates/"+m.template)
		if err != nil {
			return err
		}
		var text strings.Builder
		if err := t.Execute(&text, r); err != nil {
			return err
		}
		file := filepath.Join(dir, filepath.FromSlash(m.file))
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(file, []byte(text.String()), 0o644); err != nil {
			return err
		}
	}
	return nil
}

// writeSums writes SHA256SUMS of what is published, for sha256sum -c.
func writeSums(dir string) error {
	var files []string
	for _, kind := range []string{"*.msi", "*.zip"} {
		found, err := filepath.Glob(filepath.Join(dir, kind))
		if err != nil {
			return err
		}
		files = append(files, found...)
	}
	slices.Sort(files)
	var out strings.Builder
	for _, file := range files {
		sum, err := sumOf(file)
		if err != nil {
			return err
		}
		fmt.Fprintf(&out, "%s  %s\n", sum, filepath.Base(file))
	}
	return os.WriteFile(filepath.Join(dir, "SHA256SUMS"), []byte(out.String()), 0o644)
}

func sumOf(file string) (string, error) {
	f, err := os.Open(file)
	if err != nil {
		return "", err
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return "", err
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}
