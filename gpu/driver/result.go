package driver

// #include "cuda.h"
// #include "dispatch/dispatch.h"
import "C"

import (
	"errors"
	"fmt"
	"reflect"
	"unsafe"

	"gorgonia.org/cu"
)

// Result is an error code of the CUDA driver. Results compare with errors.Is.
type Result int

// The codes that callers tell apart.
const (
	InvalidValue             Result = C.CUDA_ERROR_INVALID_VALUE
	OutOfMemory              Result = C.CUDA_ERROR_OUT_OF_MEMORY
	NotInitialized           Result = C.CUDA_ERROR_NOT_INITIALIZED
	StubLibrary              Result = C.CUDA_ERROR_STUB_LIBRARY
	CallRequiresNewerDriver  Result = C.CUDA_ERROR_CALL_REQUIRES_NEWER_DRIVER
	DeviceUnavailable        Result = C.CUDA_ERROR_DEVICE_UNAVAILABLE
	NoDevice                 Result = C.CUDA_ERROR_NO_DEVICE
	InvalidDevice            Result = C.CUDA_ERROR_INVALID_DEVICE
	InvalidImage             Result = C.CUDA_ERROR_INVALID_IMAGE
	InvalidContext           Result = C.CUDA_ERROR_INVALID_CONTEXT
	NoBinaryForGPU           Result = C.CUDA_ERROR_NO_BINARY_FOR_GPU
	ECCUncorrectable         Result = C.CUDA_ERROR_ECC_UNCORRECTABLE
	PeerAccessUnsupported    Result = C.CUDA_ERROR_PEER_ACCESS_UNSUPPORTED
	InvalidPTX               Result = C.CUDA_ERROR_INVALID_PTX
	JITCompilerNotFound      Result = C.CUDA_ERROR_JIT_COMPILER_NOT_FOUND
	UnsupportedPTXVersion    Result = C.CUDA_ERROR_UNSUPPORTED_PTX_VERSION
	JITCompilationDisabled   Result = C.CUDA_ERROR_JIT_COMPILATION_DISABLED
	SharedObjectNotFound     Result = C.CUDA_ERROR_SHARED_OBJECT_INIT_FAILED
	SymbolNotFound           Result = C.CUDA_ERROR_SHARED_OBJECT_SYMBOL_NOT_FOUND
	OperatingSystem          Result = C.CUDA_ERROR_OPERATING_SYSTEM
	InvalidHandle            Result = C.CUDA_ERROR_INVALID_HANDLE
	IllegalState             Result = C.CUDA_ERROR_ILLEGAL_STATE
	NotFound                 Result = C.CUDA_ERROR_NOT_FOUND
	NotReady                 Result = C.CUDA_ERROR_NOT_READY
	IllegalAddress           Result = C.CUDA_ERROR_ILLEGAL_ADDRESS
	LaunchOutOfResources     Result = C.CUDA_ERROR_LAUNCH_OUT_OF_RESOURCES
	LaunchTimeout            Result = C.CUDA_ERROR_LAUNCH_TIMEOUT
	PeerAccessAlreadyEnabled Result = C.CUDA_ERROR_PEER_ACCESS_ALREADY_ENABLED
	PeerAccessNotEnabled     Result = C.CUDA_ERROR_PEER_ACCESS_NOT_ENABLED
	ContextIsDestroyed       Result = C.CUDA_ERROR_CONTEXT_IS_DESTROYED
	Assert                   Result = C.CUDA_ERROR_ASSERT
	TooManyPeers             Result = C.CUDA_ERROR_TOO_MANY_PEERS
	IllegalInstruction       Result = C.CUDA_ERROR_ILLEGAL_INSTRUCTION
	MisalignedAddress        Result = C.CUDA_ERROR_MISALIGNED_ADDRESS
	InvalidAddressSpace      Result = C.CUDA_ERROR_INVALID_ADDRESS_SPACE
	LaunchFailed             Result = C.CUDA_ERROR_LAUNCH_FAILED
	NotSupported             Result = C.CUDA_ERROR_NOT_SUPPORTED
	SystemNotReady           Result = C.CUDA_ERROR_SYSTEM_NOT_READY
	SystemDriverMismatch     Result = C.CUDA_ERROR_SYSTEM_DRIVER_MISMATCH
	CompatNotSupported       Result = C.CUDA_ERROR_COMPAT_NOT_SUPPORTED_ON_DEVICE
	CaptureUnsupported       Result = C.CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED
	CaptureInvalidated       Result = C.CUDA_ERROR_STREAM_CAPTURE_INVALIDATED
	CaptureMerge             Result = C.CUDA_ERROR_STREAM_CAPTURE_MERGE
	CaptureUnmatched         Result = C.CUDA_ERROR_STREAM_CAPTURE_UNMATCHED
	CaptureUnjoined          Result = C.CUDA_ERROR_STREAM_CAPTURE_UNJOINED
	CaptureIsolation         Result = C.CUDA_ERROR_STREAM_CAPTURE_ISOLATION
	CaptureImplicit          Result = C.CUDA_ERROR_STREAM_CAPTURE_IMPLICIT
	CapturedEvent            Result = C.CUDA_ERROR_CAPTURED_EVENT
	CaptureWrongThread       Result = C.CUDA_ERROR_STREAM_CAPTURE_WRONG_THREAD
	Unknown                  Result = C.CUDA_ERROR_UNKNOWN
)

var resultText = map[Result]string{
	InvalidValue:             "invalid value",
	OutOfMemory:              "out of memory",
	NotInitialized:           "driver not initialised",
	StubLibrary:              "the driver library is a stub",
	CallRequiresNewerDriver:  "driver too old",
	DeviceUnavailable:        "the device is in use by another process, or may not be used",
	NoDevice:                 "no CUDA device",
	InvalidDevice:            "invalid device",
	InvalidImage:             "invalid kernel image",
	InvalidContext:           "no current context",
	NoBinaryForGPU:           "no kernel for this device",
	ECCUncorrectable:         "uncorrectable memory error",
	PeerAccessUnsupported:    "no access between these devices",
	InvalidPTX:               "invalid PTX",
	JITCompilerNotFound:      "the driver's PTX compiler libnvidia-ptxjitcompiler.so.1 is not installed",
	UnsupportedPTXVersion:    "the driver is too old for this PTX",
	JITCompilationDisabled:   "compiling PTX is disabled",
	SharedObjectNotFound:     "driver library not found",
	SymbolNotFound:           "driver too old",
	OperatingSystem:          "the operating system refused a call of the driver",
	InvalidHandle:            "invalid handle",
	IllegalState:             "illegal state",
	NotFound:                 "not found",
	NotReady:                 "not ready",
	IllegalAddress:           "illegal address",
	LaunchOutOfResources:     "too many resources requested for a launch",
	LaunchTimeout:            "launch timed out",
	PeerAccessAlreadyEnabled: "peer access already enabled",
	PeerAccessNotEnabled:     "peer access not enabled",
	ContextIsDestroyed:       "context is destroyed",
	Assert:                   "device-side assertion",
	TooManyPeers:             "access to too many devices",
	IllegalInstruction:       "illegal instruction",
	MisalignedAddress:        "misaligned address",
	LaunchFailed:             "launch failed",
	NotSupported:             "not supported",
	SystemNotReady:           "the system is not ready for CUDA",
	SystemDriverMismatch:     "the driver's library and kernel module do not match",
	CompatNotSupported:       "forward compatibility is not supported on this device",
	CaptureUnsupported:       "not permitted while a stream is captured",
	CaptureInvalidated:       "the capture was invalidated by an earlier error",
	CaptureMerge:             "would merge two captures",
	CaptureUnmatched:         "the capture did not begin in this stream",
	CaptureUnjoined:          "the capture has work that was not joined to its first stream",
	CaptureIsolation:         "a captured stream may not depend on work outside its capture",
	CaptureImplicit:          "the null stream may not be used while a stream is captured",
	CapturedEvent:            "the event was recorded in a capture",
	CaptureWrongThread:       "the capture belongs to another thread",
	Unknown:                  "unknown driver error (the device may be lost)",
}

func (r Result) Error() string {
	if text, ok := resultText[r]; ok {
		return fmt.Sprintf("%s (CUDA error %d)", text, int(r))
	}
	return fmt.Sprintf("CUDA error %d", int(r))
}

// result turns a code into an error, nil for success.
func result(code C.CUresult) error {
	if code == C.CUDA_SUCCESS {
		return nil
	}
	return Result(code)
}

var cuResultType = reflect.TypeOf(cu.Success)

// ResultOf finds the driver's code in an error, be it from this package or from gorgonia.org/cu, whose error type is private.
func ResultOf(err error) (Result, bool) {
	var r Result
	if errors.As(err, &r) {
		return r, true
	}
	for ; err != nil; err = errors.Unwrap(err) {
		if v := reflect.ValueOf(err); v.Type() == cuResultType {
			return Result(v.Int()), true
		}
	}
	return 0, false
}

// Detail returns what the host device knows about the last error beyond its code: which kernel, thread and source line, which
// parameter, how much memory was free. It is empty with NVIDIA's driver.
func Detail() string {
	buffer := make([]byte, messageSize)
	C.ddgpu_error_detail((*C.char)(unsafe.Pointer(&buffer[0])), messageSize)
	for i, c := range buffer {
		if c == 0 {
			return string(buffer[:i])
		}
	}
	return string(buffer)
}
