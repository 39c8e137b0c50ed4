package main

import (
	"archive/zip"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/xml"
	"errors"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// bundled runs the program over packages and programs that are only names.
func bundled(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	for name, content := range map[string]string{
		"rea-agent-0.1.0-windows-amd64.msi": "package for amd64",
		"rea-agent-0.1.0-windows-arm64.msi": "package for arm64",
		"amd64/rea-agent.exe":               "agent", "amd64/rea-server.exe": "server",
		"arm64/rea-agent.exe": "agent", "arm64/rea-server.exe": "server",
	} {
		file := filepath.Join(dir, filepath.FromSlash(name))
		if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	t.Chdir("../../..") // where the papers are
	if err := run([]string{"-version", "v0.1.0", "-number", "0.1.0.0", "-epoch", "1700000000", "-dir", dir}); err != nil {
		t.Fatal(err)
	}
	return dir
}

func contents(t *testing.T, dir, name string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(dir, filepath.FromSlash(name)))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func sha(s string) string {
	sum := sha256.Sum256([]byte(s))
	return hex.EncodeToString(sum[:])
}

func TestAnArchiveUnpacksToOneFolderWithProgramsAndPapers(t *testing.T) {
	dir := bundled(t)
	for _, arch := range []string{"amd64", "arm64"} {
		top := "rea-0.1.0-windows-" + arch
		r, err := zip.OpenReader(filepath.Join(dir, top+".zip"))
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		var names []string
		for _, f := range r.File {
			names = append(names, f.Name)
			if got := f.Modified.Unix(); got != 1700000000 {
				t.Errorf("%s is of %d, want the time that was given", f.Name, got)
			}
			in, err := f.Open()
			if err != nil {
				t.Fatal(err)
			}
			if b, err := io.ReadAll(in); err != nil || len(b) == 0 {
				t.Errorf("%s: %d bytes, %v", f.Name, len(b), err)
			}
		}
		want := []string{top + "/rea-agent.exe", top + "/rea-server.exe", top + "/LICENSE.txt", top + "/README.md", top + "/agent.example.toml", top + "/server.example.toml"}
		if diff := cmp.Diff(want, names); diff != "" {
			t.Error(diff)
		}
	}
}

func TestTheSameInputGivesTheSameBytes(t *testing.T) {
	one := bundled(t)
	two := t.TempDir()
	if err := os.CopyFS(two, os.DirFS(one)); err != nil {
		t.Fatal(err)
	}
	if err := run([]string{"-version", "v0.1.0", "-number", "0.1.0.0", "-epoch", "1700000000", "-dir", two}); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"SHA256SUMS", "rea-0.1.0-windows-amd64.zip", "winget/REA.Agent.installer.yaml", "chocolatey/rea-agent.nuspec"} {
		if contents(t, one, name) != contents(t, two, name) {
			t.Errorf("%s differs", name)
		}
	}
}

func TestSumsAreOfAllThatIsPublished(t *testing.T) {
	dir := bundled(t)
	var want strings.Builder
	for _, name := range []string{
		"rea-0.1.0-windows-amd64.zip", "rea-0.1.0-windows-arm64.zip",
		"rea-agent-0.1.0-windows-amd64.msi", "rea-agent-0.1.0-windows-arm64.msi",
	} {
		want.WriteString(sha(contents(t, dir, name)) + "  " + name + "\n")
	}
	if diff := cmp.Diff(want.String(), contents(t, dir, "SHA256SUMS")); diff != "" {
		t.Error(diff)
	}
}

// flat reads the lists and pairs of our manifests, which is all of YAML that they
// use, and refuses the rest.
func flat(text string) (map[string][]string, error) {
	pairs := map[string][]string{}
	list := ""
	for line := range strings.Lines(text) {
		line = strings.TrimRight(line, "\n")
		bare := strings.TrimPrefix(strings.TrimLeft(line, " "), "- ")
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		key, value, isPair := strings.Cut(bare, ": ")
		switch {
		case strings.ContainsAny(line, "\t&*!|>%@`") && !strings.Contains(line, "https://"):
			return nil, errors.New("more of YAML than is known here: " + line)
		case isPair:
			pairs[key] = append(pairs[key], strings.Trim(value, `"`))
		case strings.HasSuffix(bare, ":"):
			list = strings.TrimSuffix(bare, ":")
		case strings.HasPrefix(line, "  - "):
			pairs[list] = append(pairs[list], bare)
		default:
			return nil, errors.New("neither a pair nor an item of a list: " + line)
		}
	}
	return pairs, nil
}

func TestWingetManifestsSayWhatTheirSchemaWants(t *testing.T) {
	dir := bundled(t)
	hash, link := `^[0-9A-Fa-f]{64}$`, `^https://github\.com/rea-agent/rea/releases/download/v0\.1\.0/rea-agent-0\.1\.0-windows-(amd64|arm64)\.msi$`
	for _, m := range []struct {
		file string
		want map[string]string // patterns of version 1.10.0 of the schema, or stricter
	}{
		{"winget/REA.Agent.yaml", map[string]string{
			"PackageIdentifier": `^REA\.Agent$`, "PackageVersion": `^0\.1\.0$`, "DefaultLocale": `^en-US$`, "ManifestType": `^version$`, "ManifestVersion": `^1\.10\.0$`,
		}},
		{"winget/REA.Agent.installer.yaml", map[string]string{
			"PackageIdentifier": `^REA\.Agent$`, "PackageVersion": `^0\.1\.0$`, "ManifestType": `^installer$`, "ManifestVersion": `^1\.10\.0$`,
			"InstallerType": `^wix$`, "Scope": `^machine$`, "Architecture": `^(x64|arm64)$`, "InstallerUrl": link, "InstallerSha256": hash, "ReleaseDate": `^2023-11-14$`,
			"MinimumOSVersion": `^10\.0\.\d+\.0$`, "DisplayVersion": `^0\.1\.0\.0$`, "UpgradeCode": `^\{E641B9AC-16E3-47D7-B3FA-F40D74C33B3A\}$`,
			"InstallModes": `^(interactive|silent|silentWithProgress)$`, "Platform": `^Windows\.Desktop$`, "UpgradeBehavior": `^install$`, "ElevationRequirement": `^elevatesSelf$`,
		}},
		{"winget/REA.Agent.locale.en-US.yaml", map[string]string{
			"PackageIdentifier": `^REA\.Agent$`, "PackageVersion": `^0\.1\.0$`, "PackageLocale": `^en-US$`, "ManifestType": `^defaultLocale$`, "ManifestVersion": `^1\.10\.0$`,
			"Publisher": `^.{2,256}$`, "PackageName": `^.{2,256}$`, "License": `^.{3,512}$`, "ShortDescription": `^.{3,256}$`, "Moniker": `^\S{1,40}$`, "Tags": `^\S{1,40}$`,
			"LicenseUrl": `/v0\.1\.0/LICENSE$`,
		}},
	} {
		pairs, err := flat(contents(t, dir, m.file))
		if err != nil {
			t.Fatalf("%s: %v", m.file, err)
		}
		for key, pattern := range m.want {
			if len(pairs[key]) == 0 {
				t.Errorf("%s has no %s", m.file, key)
			}
			for _, v := range pairs[key] {
				if !regexp.MustCompile(pattern).MatchString(v) {
					t.Errorf("%s: %s is %q, want %s", m.file, key, v, pattern)
				}
			}
		}
	}
}

func TestEachArchitectureHasTheSumOfItsPackage(t *testing.T) {
	dir := bundled(t)
	pairs, err := flat(contents(t, dir, "winget/REA.Agent.installer.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	want := []string{sha("package for amd64"), sha("package for arm64")}
	if diff := cmp.Diff(want, pairs["InstallerSha256"]); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff([]string{"x64", "arm64"}, pairs["Architecture"]); diff != "" {
		t.Error(diff)
	}
	install := contents(t, dir, "chocolatey/tools/chocolateyinstall.ps1")
	for _, sum := range want {
		if strings.Count(install, sum) != 1 {
			t.Errorf("Chocolatey does not check %s", sum)
		}
	}
}

func TestTheNuspecIsWellFormedAndComplete(t *testing.T) {
	dir := bundled(t)
	var spec struct {
		XMLName  xml.Name `xml:"http://schemas.microsoft.com/packaging/2015/06/nuspec.xsd package"`
		Metadata struct {
			ID          string `xml:"id"`
			Version     string `xml:"version"`
			Authors     string `xml:"authors"`
			Description string `xml:"description"`
			License     string `xml:"licenseUrl"`
		} `xml:"metadata"`
		Files []struct {
			Src string `xml:"src,attr"`
		} `xml:"files>file"`
	}
	d := xml.NewDecoder(bytes.NewReader([]byte(contents(t, dir, "chocolatey/rea-agent.nuspec"))))
	d.Strict = true
	if err := d.Decode(&spec); err != nil {
		t.Fatal(err)
	}
	m := spec.Metadata
	if m.ID != "rea-agent" || m.Version != "0.1.0" || m.Authors == "" || len(m.Description) < 30 || !strings.HasSuffix(m.License, "/v0.1.0/LICENSE") {
		t.Errorf("the nuspec says %+v", m)
	}
	if len(spec.Files) != 1 || spec.Files[0].Src != `tools\**` {
		t.Errorf("the files are %+v", spec.Files)
	}
}

// What the package, its check and the manifests say of one another.
func TestOneUpgradeCodeEverywhere(t *testing.T) {
	guid := regexp.MustCompile(`E641B9AC-[0-9A-F-]{27}`)
	found := []string{}
	for _, file := range []string{"../rea-agent.wxs", "../rea-agent.sql", "../check.sh", "templates/winget.installer.yaml"} {
		b, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		all := guid.FindAllString(string(b), -1)
		if len(all) == 0 {
			t.Errorf("%s does not name it", file)
		}
		found = append(found, all...)
	}
	if slices.Sort(found); len(slices.Compact(found)) != 1 {
		t.Errorf("they name different ones: %v", found)
	}
}

func TestAMissingPackageIsSaid(t *testing.T) {
	err := run([]string{"-version", "v0.1.0", "-number", "0.1.0.0", "-epoch", "1700000000", "-dir", t.TempDir()})
	if err == nil || !strings.Contains(err.Error(), "rea-agent-0.1.0-windows-amd64.msi") {
		t.Errorf("without a package: %v", err)
	}
}
