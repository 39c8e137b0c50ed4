package main

import (
	"bytes"
	"debug/pe"
	"encoding/xml"
	"image/png"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// empty builds the smallest program for Windows.
func empty(t *testing.T, arch string) string {
	t.Helper()
	dir := t.TempDir()
	source := filepath.Join(dir, "empty.go")
	if err := os.WriteFile(source, []byte("package main\n\nfunc main() {}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	exe := filepath.Join(dir, "empty.exe")
	cmd := exec.Command("go", "build", "-trimpath", "-ldflags=-s -w", "-o", exe, source)
	cmd.Env = append(os.Environ(), "GOOS=windows", "GOARCH="+arch, "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	return exe
}

var agent = []string{"-name", "rea-agent", "-about", "REA Endpoint Agent", "-version", "v1.2.3-45-g0a1b2c3"}

func TestAProgramShowsTheVersionThatItWasBuiltAs(t *testing.T) {
	for _, arch := range []string{"amd64", "arm64"} {
		t.Run(arch, func(t *testing.T) {
			exe := empty(t, arch)
			if err := run(append(agent, exe), nil); err != nil {
				t.Fatal(err)
			}
			var out bytes.Buffer
			if err := run([]string{"-show", exe}, &out); err != nil {
				t.Fatal(err)
			}
			for _, want := range []string{
				"Number=1.2.3.45\n", "FileVersion=1.2.3.45\n", "ProductVersion=v1.2.3-45-g0a1b2c3\n", "OriginalFilename=rea-agent.exe\n",
				"FileDescription=REA Endpoint Agent\n", "ProductName=REA\n",
			} {
				if !strings.Contains(out.String(), want) {
					t.Errorf("shown is\n%s\nwant %s", &out, want)
				}
			}
		})
	}
}

func TestWhatTheLinkerMadeStaysAsItIs(t *testing.T) {
	for _, arch := range []string{"amd64", "arm64"} {
		t.Run(arch, func(t *testing.T) {
			exe := empty(t, arch)
			before := parse(t, exe)
			if err := run(append(agent, exe), nil); err != nil {
				t.Fatal(err)
			}
			after := parse(t, exe)
			n := len(before.Sections)
			if len(after.Sections) != n+1 || after.Sections[n].Name != ".rsrc" {
				t.Fatalf("%d sections became %d, the last %s", n, len(after.Sections), after.Sections[len(after.Sections)-1].Name)
			}
			for i, s := range before.Sections {
				if diff := cmp.Diff(s.SectionHeader, after.Sections[i].SectionHeader); diff != "" {
					t.Errorf("section %s: %s", s.Name, diff)
				}
				if !bytes.Equal(content(t, s), content(t, after.Sections[i])) {
					t.Errorf("section %s has other bytes", s.Name)
				}
			}
			want := *before.OptionalHeader.(*pe.OptionalHeader64)
			got := *after.OptionalHeader.(*pe.OptionalHeader64)
			added := after.Sections[n]
			want.SizeOfInitializedData += added.Size
			want.SizeOfImage = up(added.VirtualAddress+added.VirtualSize, want.SectionAlignment)
			want.DataDirectory[pe.IMAGE_DIRECTORY_ENTRY_RESOURCE] = pe.DataDirectory{VirtualAddress: added.VirtualAddress, Size: added.VirtualSize}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Error(diff)
			}
			if got := before.OptionalHeader.(*pe.OptionalHeader64).SizeOfImage; added.VirtualAddress != got {
				t.Errorf("the new section is at %#x, want it where the image ended, %#x", added.VirtualAddress, got)
			}
		})
	}
}

func TestTheSameProgramTwiceIsTheSame(t *testing.T) {
	var exes [2][]byte
	for i := range exes {
		file := empty(t, "amd64")
		if err := run(append(agent, file), nil); err != nil {
			t.Fatal(err)
		}
		var err error
		if exes[i], err = os.ReadFile(file); err != nil {
			t.Fatal(err)
		}
	}
	if !bytes.Equal(exes[0], exes[1]) {
		t.Error("two runs gave two programs")
	}
}

func TestResourcesAreGivenOnce(t *testing.T) {
	exe := empty(t, "amd64")
	if err := run(append(agent, exe), nil); err != nil {
		t.Fatal(err)
	}
	err := run(append(agent, exe), nil)
	if err == nil || !strings.Contains(err.Error(), "has resources already") {
		t.Errorf("the second time: %v", err)
	}
}

func TestWhatIsNoProgramIsRefused(t *testing.T) {
	file := filepath.Join(t.TempDir(), "x.exe")
	if err := os.WriteFile(file, []byte("MZ, and nothing else"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := run(append(agent, file), nil); err == nil {
		t.Error("took what is no program")
	}
	if err := run([]string{"-show", file}, nil); err == nil {
		t.Error("showed what is no program")
	}
}

func TestTheNumberOfAVersion(t *testing.T) {
	for _, c := range []struct{ version, want string }{
		{"v1.2.3", "1.2.3.0"},
		{"1.2.3", "1.2.3.0"},
		{"v1.2.3-45-g0a1b2c3", "1.2.3.45"},
		{"v1.2.3-45-g0a1b2c3-dirty", "1.2.3.45"},
		{"v1.2.3-dirty", "1.2.3.0"},
		{"v1.2.3-rc.1", "1.2.3.0"},
		{"v1.2.3-rc.1-4-g0a1b2c3", "1.2.3.0"},
		{"v1.2.65536", "1.2.0.0"},
		{"5929a48", "0.0.0.0"},
		{"5929a48-dirty", "0.0.0.0"},
		{"unknown", "0.0.0.0"},
		{"", "0.0.0.0"},
	} {
		if got := numberOf(c.version).String(); got != c.want {
			t.Errorf("%q is %s, want %s", c.version, got, c.want)
		}
	}
}

func TestTheManifestAsksForNothing(t *testing.T) {
	var m struct {
		Level struct {
			Level string `xml:"level,attr"`
		} `xml:"trustInfo>security>requestedPrivileges>requestedExecutionLevel"`
		OS []struct {
			ID string `xml:"Id,attr"`
		} `xml:"compatibility>application>supportedOS"`
		LongPaths string `xml:"application>windowsSettings>longPathAware"`
	}
	if err := xml.Unmarshal(manifest, &m); err != nil {
		t.Fatal(err)
	}
	if m.Level.Level != "asInvoker" || m.LongPaths != "true" || len(m.OS) != 1 {
		t.Errorf("the manifest says %+v", m)
	}
}

func TestEachSizeOfTheIconIsWhereTheFileSays(t *testing.T) {
	file := filepath.Join(t.TempDir(), "rea.ico")
	if err := run([]string{"-icon", file}, nil); err != nil {
		t.Fatal(err)
	}
	ico, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	end := 6 + 16*len(sizes)
	for i, size := range sizes {
		e := ico[6+16*i:]
		length, at := int(le32(e[8:])), int(le32(e[12:]))
		if at != end {
			t.Errorf("%d pixels: at %d, want it behind the one before, at %d", size, at, end)
		}
		end = at + length
		if size < 256 {
			if got := int(le32(ico[at+4:])); got != size {
				t.Errorf("the bitmap is %d wide, want %d", got, size)
			}
			continue
		}
		img, err := png.Decode(bytes.NewReader(ico[at:end]))
		if err != nil || img.Bounds().Dx() != size {
			t.Errorf("the largest: %v, %v", img.Bounds(), err)
		}
	}
	if end != len(ico) {
		t.Errorf("the images end at %d of %d bytes", end, len(ico))
	}
}

func TestTheIconIsADrawingOnNothing(t *testing.T) {
	img := draw(256)
	if a := img.NRGBAAt(0, 0).A; a != 0 {
		t.Errorf("the corner is %d opaque, want nothing there", a)
	}
	for at, want := range map[[2]int]any{{128, 20}: ground, {200, 125}: dot, {60, 140}: line} {
		if got := img.NRGBAAt(at[0], at[1]); got != want {
			t.Errorf("at %v is %v, want %v", at, got, want)
		}
	}
}

func FuzzADamagedVersionIsAnError(f *testing.F) {
	f.Add(program{"rea-agent", "REA Endpoint Agent", "v1.2.3"}.versionInfo())
	f.Fuzz(func(t *testing.T, b []byte) {
		list, err := parseVersion(b)
		if err == nil && len(list) > len(b) {
			t.Errorf("%d texts in %d bytes", len(list), len(b))
		}
	})
}

func parse(t *testing.T, file string) *pe.File {
	t.Helper()
	f, err := pe.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

func content(t *testing.T, s *pe.Section) []byte {
	t.Helper()
	b, err := s.Data()
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func le32(b []byte) uint32 {
	return uint32(b[0]) | uint32(b[1])<<8 | uint32(b[2])<<16 | uint32(b[3])<<24
}
