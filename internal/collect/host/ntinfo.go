package host

import (
	"encoding/binary"
	"errors"
	"strconv"
	"strings"
	"time"
	"unicode/utf16"
)

// A version is what RtlGetVersion tells, and what the registry adds to it under
// Windows NT\CurrentVersion; an empty text or a negative UBR is not there.
type version struct {
	major, minor, build       uint32
	server                    bool
	product, display, edition string
	revision                  int64 // UBR: the update of the build
}

// windows11 is the first build of Windows 11, of which the registry says in
// ProductName that it is Windows 10.
const windows11 = 22000

func (v version) os() OS {
	o := OS{Type: "windows", Name: v.product, Version: v.number(), Release: v.display, Edition: v.edition}
	if rest, ok := strings.CutPrefix(v.product, "Windows 10"); ok && v.build >= windows11 && !v.server {
		o.Name = "Windows 11" + rest
	}
	o.Build = strconv.FormatUint(uint64(v.build), 10)
	if v.revision >= 0 {
		o.Build += "." + strconv.FormatInt(v.revision, 10)
	}
	return o
}

func (v version) kernel() Kernel { return Kernel{Name: "Windows NT", Release: v.number()} }

func (v version) number() string {
	b := strconv.AppendUint(nil, uint64(v.major), 10)
	b = strconv.AppendUint(append(b, '.'), uint64(v.minor), 10)
	return string(strconv.AppendUint(append(b, '.'), uint64(v.build), 10))
}

// machineArchitecture returns OpenTelemetry's name for an IMAGE_FILE_MACHINE.
func machineArchitecture(machine uint16) string {
	switch machine {
	case 0x8664:
		return "amd64"
	case 0xaa64:
		return "arm64"
	case 0x014c:
		return "x86"
	case 0x01c0, 0x01c4:
		return "arm32"
	}
	return ""
}

// parseTimeOfDay reads the boot time out of SYSTEM_TIMEOFDAY_INFORMATION, where
// it is the first member, in units of 100 ns since 1601 (phnt, ntexapi.h).
// Windows moves it with its clock, so that it does not wobble.
func parseTimeOfDay(b []byte) (time.Time, error) {
	const epoch = 116444736000000000 // 1970
	const most = 2650467744000000000 // 10000
	if len(b) < 8 {
		return time.Time{}, errors.New("parse time of day: too short")
	}
	units := int64(binary.LittleEndian.Uint64(b))
	if units < epoch || units >= most {
		return time.Time{}, errors.New("parse time of day: no time")
	}
	units -= epoch
	return time.Unix(units/1e7, units%1e7*100), nil
}

// Places in DYNAMIC_TIME_ZONE_INFORMATION (timezoneapi.h), and what
// GetDynamicTimeZoneInformation returns where daylight time is in force.
const (
	zoneSize       = 432
	standardBiasAt = 84
	daylightBiasAt = 168
	zoneKeyAt      = 172
	zoneKeyEnd     = 428
	zoneIDUnknown  = 0
	zoneIDStandard = 1
	zoneIDDaylight = 2
)

// parseZone returns the name of the time zone in the registry, and its offset
// in seconds east of UTC. Windows counts biases in minutes to the west.
func parseZone(b []byte, id uint32) (name string, offset int64, err error) {
	if len(b) < zoneSize {
		return "", 0, errors.New("parse time zone: too short")
	}
	bias := func(at int) int64 { return int64(int32(binary.LittleEndian.Uint32(b[at:]))) }
	west := bias(0)
	switch id {
	case zoneIDUnknown: // a zone without daylight time
	case zoneIDStandard:
		west += bias(standardBiasAt)
	case zoneIDDaylight:
		west += bias(daylightBiasAt)
	default:
		return "", 0, errors.New("parse time zone: neither standard nor daylight time")
	}
	if west < -24*60 || west > 24*60 {
		return "", 0, errors.New("parse time zone: offset of more than a day")
	}
	var key []uint16
	for at := zoneKeyAt; at < zoneKeyEnd; at += 2 {
		c := binary.LittleEndian.Uint16(b[at:])
		if c == 0 {
			break
		}
		key = append(key, c)
	}
	return string(utf16.Decode(key)), -60 * west, nil
}
