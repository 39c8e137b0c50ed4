package wine

import "golang.org/x/sys/windows"

// Running reports whether this is Wine, whose ntdll has a function that says so.
func Running() bool {
	return windows.NewLazySystemDLL("ntdll.dll").NewProc("wine_get_version").Find() == nil
}
