package driver

/*
#include "dispatch/dispatch.h"
#include <stdlib.h>
*/
import "C"

import (
	"fmt"
	"strings"
	"unsafe"

	"gorgonia.org/cu"
)

// The handle types of gorgonia.org/cu are structs of one C pointer that they keep to themselves; these read it.

func streamHandle(s cu.Stream) C.CUstream       { return *(*C.CUstream)(unsafe.Pointer(&s)) }
func functionHandle(f cu.Function) C.CUfunction { return *(*C.CUfunction)(unsafe.Pointer(&f)) }

// handles fails to compile if a handle type of cu is no longer one pointer.
var _ = [1]struct{}{}[unsafe.Sizeof(cu.Stream{})-unsafe.Sizeof(uintptr(0))+
	unsafe.Sizeof(cu.Function{})-unsafe.Sizeof(uintptr(0))+
	unsafe.Sizeof(cu.Module{})-unsafe.Sizeof(uintptr(0))]

// CaptureMode says which calls of the process are errors while a stream is captured.
type CaptureMode int

// The capture modes: unsafe calls of any thread, of the capturing thread, of none are errors.
const (
	CaptureGlobal      CaptureMode = C.CU_STREAM_CAPTURE_MODE_GLOBAL
	CaptureThreadLocal CaptureMode = C.CU_STREAM_CAPTURE_MODE_THREAD_LOCAL
	CaptureRelaxed     CaptureMode = C.CU_STREAM_CAPTURE_MODE_RELAXED
)

// Graph is captured work.
type Graph struct{ handle C.CUgraph }

// GraphExec is a graph that can be launched.
type GraphExec struct{ handle C.CUgraphExec }

// BeginCapture starts to record the work of a stream instead of running it.
func BeginCapture(s cu.Stream, mode CaptureMode) error {
	return result(C.cuStreamBeginCapture(streamHandle(s), C.CUstreamCaptureMode(mode)))
}

// EndCapture ends a capture and returns what it recorded.
func EndCapture(s cu.Stream) (Graph, error) {
	var g Graph
	err := result(C.cuStreamEndCapture(streamHandle(s), &g.handle))
	return g, err
}

// Capturing reports whether a stream is being captured.
func Capturing(s cu.Stream) (bool, error) {
	var status C.CUstreamCaptureStatus
	err := result(C.cuStreamIsCapturing(streamHandle(s), &status))
	return status != C.CU_STREAM_CAPTURE_STATUS_NONE, err
}

// Nodes returns the number of operations in the graph.
func (g Graph) Nodes() (int, error) {
	var n C.size_t
	err := result(C.cuGraphGetNodes(g.handle, nil, &n))
	return int(n), err
}

// Instantiate makes the graph ready to launch.
func (g Graph) Instantiate() (GraphExec, error) {
	var e GraphExec
	err := result(C.cuGraphInstantiateWithFlags(&e.handle, g.handle, 0))
	return e, err
}

// Destroy frees the graph; what was instantiated from it stays.
func (g Graph) Destroy() error { return result(C.cuGraphDestroy(g.handle)) }

// Launch queues the graph's work in a stream.
func (e GraphExec) Launch(s cu.Stream) error {
	return result(C.cuGraphLaunch(e.handle, streamHandle(s)))
}

// Destroy frees the executable graph.
func (e GraphExec) Destroy() error { return result(C.cuGraphExecDestroy(e.handle)) }

// FuncAttribute is an attribute of a kernel that can be set.
type FuncAttribute int

// The settable attributes.
const (
	MaxDynamicShared        FuncAttribute = C.CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES    // opt in to more than 48 KB, in bytes
	PreferredSharedCarveOut FuncAttribute = C.CU_FUNC_ATTRIBUTE_PREFERRED_SHARED_MEMORY_CARVEOUT // percent of the L1 cache
)

// FuncSetAttribute sets an attribute of a kernel.
func FuncSetAttribute(f cu.Function, attribute FuncAttribute, value int) error {
	return result(C.cuFuncSetAttribute(functionHandle(f), C.CUfunction_attribute(attribute), C.int(value)))
}

// MaxSharedPerBlockOptIn is the most dynamic shared memory per block that MaxDynamicShared can allow on the device, in bytes.
func MaxSharedPerBlockOptIn(d cu.Device) (int, error) {
	return d.Attribute(C.CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN)
}

// UUID names the device for good, as nvidia-smi -L and CUDA_VISIBLE_DEVICES do: GPU-… or, for a part of a GPU, MIG-….
func UUID(d cu.Device) (string, error) {
	var gpu, own C.CUuuid
	if err := result(C.cuDeviceGetUuid(&gpu, C.CUdevice(d))); err != nil {
		return "", err
	}
	if err := result(C.cuDeviceGetUuid_v2(&own, C.CUdevice(d))); err != nil {
		own = gpu // a driver without the later version
	}
	return nameOf(*(*[16]byte)(unsafe.Pointer(&gpu)), *(*[16]byte)(unsafe.Pointer(&own))), nil
}

// nameOf writes a device's UUID, which differs from that of its GPU where the GPU is divided (CUDA driver API, cuDeviceGetUuid_v2).
func nameOf(gpu, own [16]byte) string {
	kind := "GPU"
	if own != gpu {
		kind = "MIG"
	}
	return fmt.Sprintf("%s-%x-%x-%x-%x-%x", kind, own[:4], own[4:6], own[6:8], own[8:10], own[10:])
}

// AllocHost allocates pinned host memory, which asynchronous copies need.
func AllocHost(bytes int64) (unsafe.Pointer, error) {
	var p unsafe.Pointer
	err := result(C.cuMemHostAlloc(&p, C.size_t(bytes), C.CU_MEMHOSTALLOC_PORTABLE))
	return p, err
}

// FreeHost frees what AllocHost returned.
func FreeHost(p unsafe.Pointer) error { return result(C.cuMemFreeHost(p)) }

// Launch queues a kernel. Each argument fills one 8-byte slot, its low bytes first; unlike cu's Launch it makes one call into C
// and allocates nothing.
func Launch(f cu.Function, grid, block [3]int, shared int, s cu.Stream, args []uint64) error {
	var g, b [3]C.uint
	for i := range g {
		if grid[i] < 0 || grid[i] > 1<<32-1 || block[i] < 0 || block[i] > 1<<32-1 {
			return InvalidValue
		}
		g[i], b[i] = C.uint(grid[i]), C.uint(block[i])
	}
	var slots *C.uint64_t
	if len(args) > 0 {
		slots = (*C.uint64_t)(unsafe.Pointer(&args[0]))
	}
	return result(C.ddgpu_launch(functionHandle(f), &g[0], &b[0], C.uint(shared), streamHandle(s), slots, C.int(len(args))))
}

// logSize is how much of a compiler's log is read, in bytes.
const logSize = 16 << 10

// LoadModule loads PTX text. The error holds what the driver's compiler said about it.
func LoadModule(image string) (cu.Module, error) {
	text := C.CString(image)
	defer C.free(unsafe.Pointer(text))
	log := (*C.char)(C.calloc(logSize, 1))
	defer C.free(unsafe.Pointer(log))
	var handle C.CUmodule
	if code := C.ddgpu_module_load(&handle, text, log, logSize); code != C.CUDA_SUCCESS {
		return cu.Module{}, imageError(Result(code), C.GoString(log), image)
	}
	return *(*cu.Module)(unsafe.Pointer(&handle)), nil
}

// Compile turns PTX text into machine code for the current context's device, as [LoadModule] does, but to keep: what it gives is for [LoadCode]
// in this or another process with the same driver.
func Compile(image string) ([]byte, error) {
	text := C.CString(image)
	defer C.free(unsafe.Pointer(text))
	log := (*C.char)(C.calloc(logSize, 1))
	defer C.free(unsafe.Pointer(log))
	var code unsafe.Pointer
	var size C.size_t
	failed := C.ddgpu_compile(text, C.size_t(len(image)+1), &code, &size, log, logSize)
	defer C.free(code)
	if failed != C.CUDA_SUCCESS {
		return nil, imageError(Result(failed), C.GoString(log), image)
	}
	if size > 1<<30 {
		return nil, fmt.Errorf("the driver's compiler made %d bytes of machine code", uint64(size))
	}
	return C.GoBytes(code, C.int(size)), nil
}

// LoadCode loads what [Compile] gave.
func LoadCode(code []byte) (cu.Module, error) {
	image := C.CBytes(append(code[:len(code):len(code)], 0)) // the driver looks for the end itself
	defer C.free(image)
	var handle C.CUmodule
	if code := C.cuModuleLoadData(&handle, image); code != C.CUDA_SUCCESS {
		return cu.Module{}, Result(code)
	}
	return *(*cu.Module)(unsafe.Pointer(&handle)), nil
}

// imageError is the driver's refusal of PTX, with what its compiler said and what the user can do.
func imageError(code Result, log, image string) error {
	var said []string
	for _, text := range []string{strings.TrimSpace(log), imageAdvice(code, image)} {
		if text != "" {
			said = append(said, text)
		}
	}
	if len(said) == 0 {
		return code
	}
	return fmt.Errorf("%w: %s", code, strings.Join(said, "; "))
}
