package gpu

import (
	"fmt"

	"github.com/dustin/go-humanize"

	"ddgpu/gpu/driver"
)

// Error is a driver call that failed.
type Error struct {
	Op     string // what was attempted: "copying 12 bytes to the device"
	Device int
	Err    error  // wraps a [driver.Result]
	Detail string // what the host device knows beyond the code, or empty
}

func (e *Error) Error() string {
	text := fmt.Sprintf("%s on device %d: %v", e.Op, e.Device, e.Err)
	if e.Detail != "" {
		text += " (" + e.Detail + ")"
	}
	return text
}

// Unwrap gives the driver's code.
func (e *Error) Unwrap() error { return e.Err }

// failed makes an *Error of what a driver call returned, which must not be nil.
func failed(op string, device int, err error) error {
	if code, ok := driver.ResultOf(err); ok {
		if _, wrapped := err.(interface{ Unwrap() error }); !wrapped {
			err = code
		}
	}
	return &Error{Op: op, Device: device, Err: err, Detail: driver.Detail()}
}

// MemoryError is an allocation that a device has no room for.
type MemoryError struct {
	What               string // what the memory was for
	Device             int
	Bytes, Free, InUse int64
	Limited            bool // by [Machine.LimitMemory], of which Free is left
}

func (e *MemoryError) Error() string {
	of := ""
	if e.Limited {
		of = "the memory limit of "
	}
	return fmt.Sprintf("allocating %s for %s on device %d: out of memory, %s of %s%s free", size(e.Bytes), e.What, e.Device, size(e.Free), of, size(e.Free+e.InUse))
}

// Unwrap gives [driver.OutOfMemory].
func (e *MemoryError) Unwrap() error { return driver.OutOfMemory }

func size(bytes int64) string { return humanize.IBytes(uint64(max(0, bytes))) }
