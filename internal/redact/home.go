package redact

import "strings"

// homeKind is the kind of a hit that is no secret but the name of a home.
const homeKind = "home"

// Where homes lie, and so where the next part of a path is somebody's name.
var homes = [...]string{"/home/", "/Users/", `\Users\`, `\Documents and Settings\`, "/export/home/", "/var/home/"}

// withoutHome replaces the name of the home that the path lies in.
func withoutHome(path string, replace func(string) string) string {
	for _, h := range homes {
		i := indexFold(path, h)
		if i < 0 {
			continue
		}
		name := path[i+len(h):]
		end := strings.IndexAny(name, `/\`)
		if end < 0 {
			end = len(name)
		}
		if end > 0 && !nobody(name[:end]) {
			return path[:i+len(h)] + replace(name[:end]) + name[end:]
		}
	}
	return path
}

// homePath deals with the / or \ at i that ends the name of a folder of homes.
func (c *scan) homePath(i int) int {
	s := c.s
	from := i + 1
	for from < len(s) && s[from] == '\\' { // doubled in JSON
		from++
	}
	end := from
	switch folder := s[:i]; {
	case s[i] == '/' && strings.HasSuffix(folder, "/home") && rooted(folder[:len(folder)-len("/home")]):
		end = nameEnd(s, from, "")
	case s[i] == '/' && strings.HasSuffix(folder, "/Users") && rooted(folder[:len(folder)-len("/Users")]):
		end = nameEnd(s, from, "")
	case suffixFold(folder, `\Users`), suffixFold(folder, `\Documents and Settings`), s[i] == '/' && suffixFold(folder, ":/Users"):
		end = nameEnd(s, from, `\/`)
	}
	if end == from || nobody(s[from:end]) || strings.HasPrefix(s[from:], Mark) || hashed(s[from:min(len(s), from+hashLen)]) {
		return i
	}
	c.hit(from, end, homeKind)
	return end
}

// rooted reports whether the path that begins behind s begins at a root, and not
// in the address of a page.
func rooted(s string) bool {
	if s == "" || !is(s[len(s)-1], word|dot) {
		return true
	}
	for _, root := range [...]string{"/export", "/var", "/mnt", "/net", "/srv", "/data", "/host", "/rootfs", "/sysroot", "/merged", "/root", "/backup"} {
		if strings.HasSuffix(s, root) {
			return true
		}
	}
	return false
}

// nameEnd returns where the name of a home that begins at p ends. On Windows it
// may have spaces if one of separators ends it.
func nameEnd(s string, p int, separators string) int {
	space := -1
	for i := p; i < len(s); i++ {
		c := s[i]
		switch {
		case separators != "" && strings.IndexByte(separators, c) >= 0 && i-p < 64:
			return i
		case c == ' ' && separators != "" && i-p < 64:
			if space < 0 {
				space = i
			}
			continue
		case c <= ' ' || strings.IndexByte(`/\"'<>|:*?,;)]}&`+"`", c) >= 0:
			if space >= 0 {
				return space
			}
			return i
		}
	}
	if space >= 0 {
		return space
	}
	return len(s)
}

// nobody reports whether a folder among homes is nobody's.
func nobody(name string) bool {
	switch strings.ToLower(name) {
	case "public", "default", "default user", "all users", "shared", "localservice", "networkservice", "*", ".", "..":
		return true
	}
	return false
}

func suffixFold(s, suffix string) bool {
	return len(s) >= len(suffix) && strings.EqualFold(s[len(s)-len(suffix):], suffix)
}

func indexFold(s, sub string) int {
	for i := 0; i+len(sub) <= len(s); i++ {
		if s[i] == sub[0] && strings.EqualFold(s[i:i+len(sub)], sub) {
			return i
		}
	}
	return -1
}
