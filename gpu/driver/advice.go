package driver

import (
	"fmt"
	"os"
	"regexp"
	"strconv"
	"strings"

	"gorgonia.org/cu"
)

// release is a version of the PTX language with the first CUDA whose driver compiles it, and that driver on Linux.
type release struct{ ptx, cuda, driver string }

// releases are from the PTX ISA, "Release Notes", and the CUDA Toolkit Release Notes, "CUDA Toolkit and Corresponding Driver Versions".
var releases = []release{
	{"6.0", "9.0", "384.81"}, {"6.1", "9.1", "390.46"}, {"6.2", "9.2", "396.26"}, {"6.3", "10.0", "410.48"}, {"6.4", "10.1", "418.39"},
	{"6.5", "10.2", "440.33"}, {"7.0", "11.0", "450.36.06"}, {"7.1", "11.1", "455.23"}, {"7.2", "11.2", "460.27.03"},
	{"7.3", "11.3", "465.19.01"}, {"7.4", "11.4", "470.42.01"}, {"7.5", "11.5", "495.29.05"}, {"7.6", "11.6", "510.39.01"},
	{"7.7", "11.7", "515.43.04"}, {"7.8", "11.8", "520.61.05"}, {"8.0", "12.0", "525.60.13"},
}

// oldest is the release whose driver has every entry point that is required.
const oldest = "7.4"

func releaseOf(ptx string) (release, bool) {
	for _, r := range releases {
		if r.ptx == ptx {
			return r, true
		}
	}
	return release{}, false
}

func (r release) String() string {
	return fmt.Sprintf("NVIDIA driver %s or newer (CUDA %s)", r.driver, r.cuda)
}

// installed says which driver there is, as far as that is known.
func installed() string {
	var parts []string
	if library := Library(); library != "" {
		parts = append(parts, "the library is "+library)
	}
	if module := KernelModule(); module != "" {
		parts = append(parts, "the kernel module "+module)
	}
	return strings.Join(parts, ", ")
}

// advice is what a user can do about a driver that does not open, or "".
func advice(code Result) string {
	switch code {
	case SharedObjectNotFound:
		return "a driver is installed with the system's packages, and given to a container by the NVIDIA Container Toolkit (--gpus all)"
	case SymbolNotFound, CallRequiresNewerDriver:
		r, _ := releaseOf(oldest)
		return join("it must be "+r.String(), installed())
	case StubLibrary:
		return join("this library is the CUDA toolkit's stub, which serves to link programs only: take its folder out of LD_LIBRARY_PATH", installed())
	case SystemDriverMismatch:
		return join("the driver's library and its kernel module are of different versions: restart the machine after an update of the driver, "+
			"the container after one of its host", installed())
	case CompatNotSupported:
		return join("the library is of a cuda-compat package, which this GPU does not support: take its folder out of LD_LIBRARY_PATH, "+
			"or update the driver", installed())
	case SystemNotReady:
		return "the GPUs' NVLink fabric is not up: see systemctl status nvidia-fabricmanager"
	case OperatingSystem:
		return "the device nodes /dev/nvidia* cannot be used: see nvidia-modprobe, their permissions, and the container's devices"
	case NoDevice:
		if value, set := os.LookupEnv("CUDA_VISIBLE_DEVICES"); set {
			return fmt.Sprintf("CUDA_VISIBLE_DEVICES=%s leaves none: it lists numbers or UUIDs of GPUs, and what follows the first that is not there is ignored",
				value)
		}
		return "nvidia-smi shows whether the driver sees one; a container is given GPUs with --gpus all"
	case Unknown:
		return "dmesg can say more; after a suspend, load the module nvidia_uvm anew"
	}
	return ""
}

func join(text, more string) string {
	if more == "" {
		return text
	}
	return text + " (" + more + ")"
}

var (
	ptxVersion = regexp.MustCompile(`(?m)^\s*\.version\s+(\d+\.\d+)`)
	ptxTarget  = regexp.MustCompile(`(?m)^\s*\.target\s+sm_(\d+)`)
)

// imageAdvice is what a user can do about PTX that the open driver refuses, or "".
func imageAdvice(code Result, image string) string {
	head := image[:min(len(image), 4096)]
	switch code {
	case UnsupportedPTXVersion:
		m := ptxVersion.FindStringSubmatch(head)
		if m == nil {
			return ""
		}
		text := "PTX " + m[1]
		if r, known := releaseOf(m[1]); known {
			text += " needs " + r.String()
		}
		version := cu.Version()
		return join(fmt.Sprintf("%s; this one is of CUDA %d.%d", text, version/1000, version%1000/10), installed())
	case NoBinaryForGPU, InvalidPTX: // the second from ptxas, which the driver's linker calls
		m := ptxTarget.FindStringSubmatch(head)
		if m == nil {
			return ""
		}
		target, err := strconv.Atoi(m[1])
		if err != nil {
			return ""
		}
		d, err := cu.CurrentDevice()
		if err != nil {
			return ""
		}
		major, minor, err := d.ComputeCapability()
		if err != nil || major*10+minor >= target {
			return ""
		}
		return fmt.Sprintf("the kernels need compute capability %d.%d or newer, the device has %d.%d", target/10, target%10, major, minor)
	case JITCompilationDisabled:
		return "unset CUDA_DISABLE_PTX_JIT"
	}
	return ""
}
