package driver

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strings"

	"gorgonia.org/cu"
)

// procVersion is where the kernel module tells its version; tests set it.
var procVersion = "/proc/driver/nvidia/version"

var versionPattern = regexp.MustCompile(`\d+\.\d+(\.\d+)?`)

// KernelModule is the version of NVIDIA's kernel module that is loaded, such as 550.54.15, or "".
func KernelModule() string {
	f, err := os.Open(procVersion)
	if err != nil {
		return ""
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, 4096))
	if err != nil {
		return ""
	}
	line, _, _ := strings.Cut(string(text), "\n")
	return versionPattern.FindString(line)
}

// Library is the file that NVIDIA's driver library was loaded from, links resolved: its name ends with the driver's version. It is "" for
// the host device.
func Library() string {
	path := libraryPath()
	if path == "" {
		return ""
	}
	if resolved, err := filepath.EvalSymlinks(path); err == nil {
		return resolved
	}
	return path
}

// Identity names the open driver with its compiler: what it compiles differs from what another one would.
func Identity() string {
	if HostDevice() {
		return "host device"
	}
	library, size := Library(), int64(0)
	if info, err := os.Stat(library); err == nil {
		size = info.Size() // where the file's name has no version
	}
	return fmt.Sprintf("CUDA %d, %s of %d bytes, kernel module %s", cu.Version(), filepath.Base(library), size, KernelModule())
}
