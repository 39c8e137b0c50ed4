package agent

import "os"

// machineID reads the id that the system gave the machine (machine-id(5)).
func machineID() (string, error) {
	b, err := os.ReadFile("/etc/machine-id")
	if err != nil {
		b, err = os.ReadFile("/var/lib/dbus/machine-id")
	}
	return string(b), err
}
