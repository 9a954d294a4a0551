// Package driver connects the process to a CUDA driver: NVIDIA's, or the host device, which runs the same kernels on the CPU.
//
// Every driver entry point that the program uses, through gorgonia.org/cu or through this package, is defined in the library
// that this package links, and forwards to whichever driver [Open] chose. Until then each returns NOT_INITIALIZED, so a program
// starts on a machine without a GPU, without NVIDIA's library, or with one that finds no GPU:
//
//	notice, err := driver.Open("auto")
//
// The host device behaves as a strict GPU does: see [Spec] for its settings.
package driver

/*
#cgo LDFLAGS: -lcuda -l:libstdc++.a -lm -lpthread -ldl
#include "dispatch/dispatch.h"
#include <stdlib.h>
*/
import "C"

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"unsafe"

	"gorgonia.org/cu"
)

// ErrOpen is returned by Open after the driver has been chosen.
var ErrOpen = errors.New("the driver is open already")

var (
	mutex  sync.Mutex
	opened *Spec // what the open driver is, nil before
)

// Open chooses the driver for the whole process, once. The spec is described at [ParseSpec]. For "auto" where the machine has
// no NVIDIA device it opens the host device; the notice says so, in one line for the user, and is empty otherwise.
func Open(spec string) (notice string, err error) {
	s, err := ParseSpec(spec)
	if err != nil {
		return "", err
	}
	return OpenSpec(s)
}

// OpenSpec is Open for a parsed spec.
func OpenSpec(s Spec) (notice string, err error) {
	mutex.Lock()
	defer mutex.Unlock()
	if opened != nil {
		return "", ErrOpen
	}
	if s.Kind == Auto {
		if why := gpuExpected(); why != "" {
			s.Kind = CUDA
			if err := openCUDA(); err != nil {
				return "", fmt.Errorf("%w (%s; --devices host runs on the CPU)", err, why)
			}
			opened = &s
			return "", nil
		}
		s.Kind = Host
		notice = "no NVIDIA GPU on this machine: running on the CPU (host device)"
	}
	if s.Kind == CUDA {
		err = openCUDA()
	} else {
		err = openHost(s)
	}
	if err != nil {
		return "", err
	}
	opened = &s
	return notice, nil
}

// Close disconnects from the driver: calls return NOT_INITIALIZED again and Open may be called anew. The host device frees
// all that its devices hold; no call may be under way.
func Close() {
	mutex.Lock()
	defer mutex.Unlock()
	if opened != nil {
		C.ddgpu_close()
		opened = nil
	}
}

// Opened returns the spec of the open driver, with Kind resolved to CUDA or Host, and whether there is one.
func Opened() (Spec, bool) {
	mutex.Lock()
	defer mutex.Unlock()
	if opened == nil {
		return Spec{}, false
	}
	return *opened, true
}

// HostDevice reports whether the open driver is the host device.
func HostDevice() bool {
	s, ok := Opened()
	return ok && s.Kind != CUDA
}

// Sanitizer names the sanitizer that the host device and its kernels were built with: "address", "thread" or "".
func Sanitizer() string { return C.GoString(C.ddgpu_sanitizer()) }

// Allocations is how many allocations the host device was asked for since it was opened, of its memory and of pinned memory; 0 with
// NVIDIA's driver.
func Allocations() uint64 { return uint64(C.ddgpu_allocations()) }

// A Note is a kernel that a dry host device was to run.
type Note struct {
	Kernel string    `json:"kernel"`
	Grid   [3]int    `json:"grid"`
	Block  int       `json:"block"`  // threads
	Shared int       `json:"shared"` // dynamic shared memory of a block, bytes
	Args   []float64 `json:"args"`   // a pointer is 0 or 1
}

// Noted is what a dry host device was to run since the last call, in the order in which its streams came to it.
func Noted() ([]Note, error) {
	var launches []Note
	for line := range strings.Lines(C.GoString(C.ddgpu_noted())) {
		words := strings.Fields(line)
		l := Note{Kernel: words[0], Args: make([]float64, len(words)-1)}
		for i, word := range words[1:] {
			var err error
			if l.Args[i], err = strconv.ParseFloat(word, 64); err != nil {
				return nil, fmt.Errorf("a launch was noted as %q: %w", line, err)
			}
		}
		if len(l.Args) < 5 {
			return nil, fmt.Errorf("a launch was noted as %q", line)
		}
		l.Grid = [3]int{int(l.Args[0]), int(l.Args[1]), int(l.Args[2])}
		l.Block, l.Shared, l.Args = int(l.Args[3]), int(l.Args[4]), l.Args[5:]
		launches = append(launches, l)
	}
	return launches, nil
}

// deviceRoot, wslDriver and environment are where gpuExpected looks; tests set them.
var (
	deviceRoot  = "/dev"
	wslDriver   = "/usr/lib/wsl/lib/libcuda.so.1"
	environment = os.Getenv
)

// gpuExpected says why a GPU should be there: a device node of NVIDIA's, or a launcher that assigned one to this process. It
// returns "" where neither is so, and then only the CPU is left.
func gpuExpected() string {
	for _, pattern := range []string{"nvidia[0-9]*", "nvidiactl", "nvhost-gpu", "nvgpu"} { // the last two on a Jetson
		if found, _ := filepath.Glob(filepath.Join(deviceRoot, pattern)); len(found) > 0 {
			return found[0] + " exists"
		}
	}
	// Under WSL any GPU is /dev/dxg; Windows lends NVIDIA's library where one is NVIDIA's.
	if dxg := filepath.Join(deviceRoot, "dxg"); exists(dxg) && exists(wslDriver) {
		return dxg + " and " + wslDriver + " exist"
	}
	for _, name := range []string{"CUDA_VISIBLE_DEVICES", "SLURM_JOB_GPUS", "SLURM_STEP_GPUS", "GPU_DEVICE_ORDINAL", "NVIDIA_VISIBLE_DEVICES"} {
		switch value := environment(name); value {
		case "", "-1", "none", "void", "NoDevFiles":
		default:
			return name + "=" + value
		}
	}
	return ""
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

const messageSize = 1024

func openCUDA() error {
	message := (*C.char)(C.malloc(messageSize))
	defer C.free(unsafe.Pointer(message))
	if code := C.ddgpu_open_cuda(message, messageSize); code != C.CUDA_SUCCESS {
		return refused(Result(code), C.GoString(message))
	}
	var count C.int
	if code := C.cuDeviceGetCount(&count); code != C.CUDA_SUCCESS || count == 0 {
		C.ddgpu_close()
		if code == C.CUDA_SUCCESS {
			code = C.CUDA_ERROR_NO_DEVICE
		}
		return refused(Result(code), "NVIDIA's driver finds no GPU")
	}
	return nil
}

// refused is the error of a driver that does not open, with what the user can do.
func refused(code Result, message string) error {
	message = strings.TrimSpace(message)
	if what := advice(code); what != "" {
		message += ": " + what
	}
	return &OpenError{Code: code, Message: message}
}

// libraryPath is where NVIDIA's driver library was loaded from, "" when it is not loaded.
func libraryPath() string {
	buffer := make([]byte, messageSize)
	C.ddgpu_library_path((*C.char)(unsafe.Pointer(&buffer[0])), messageSize)
	text, _, _ := strings.Cut(string(buffer), "\x00")
	return text
}

func openHost(s Spec) error {
	message := (*C.char)(C.malloc(messageSize))
	defer C.free(unsafe.Pointer(message))
	config := C.ddgpu_host_config{
		devices:  C.int(s.Devices),
		memory:   C.uint64_t(s.Memory),
		threads:  C.int(s.Threads),
		order:    C.int(s.Order),
		seed:     C.uint64_t(s.Seed),
		fault:    C.int(s.Fault),
		fault_at: C.uint64_t(s.FaultAt),
	}
	if s.Threads == 0 {
		config.threads = C.int(max(1, runtime.NumCPU()/max(1, s.Devices)))
	}
	if s.GPUTiles {
		config.gpu_tiles = 1
	}
	if s.Kind == PTX {
		config.ptx = 1
	}
	if s.Lazy {
		config.lazy = 1
	}
	if s.NoPeers {
		config.no_peers = 1
	}
	if s.Dry {
		config.dry = 1
	}
	if code := C.ddgpu_open_host(&config, message, messageSize); code != C.CUDA_SUCCESS {
		return &OpenError{Code: Result(code), Message: C.GoString(message)}
	}
	return nil
}

// OpenError says why a driver could not be opened.
type OpenError struct {
	Code    Result
	Message string
}

func (e *OpenError) Error() string { return strings.TrimSpace(e.Message) }

// Unwrap returns the driver's code.
func (e *OpenError) Unwrap() error { return e.Code }

// LinkedVersion is the CUDA API version that the open driver reports (11040 for 11.4), or -1 before Open.
func LinkedVersion() int { return cu.Version() }
