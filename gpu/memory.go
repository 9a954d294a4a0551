package gpu

import (
	"fmt"
	"unsafe"

	"gorgonia.org/cu"

	"ddgpu/gpu/driver"
)

// Ptr is an address in a device's memory; 0 is none.
type Ptr uint64

// Offset is the address n bytes on; that of none is none.
func (p Ptr) Offset(n int64) Ptr {
	if p == 0 {
		return 0
	}
	return p + Ptr(n)
}

// Alloc reserves device memory, aligned to at least 256 bytes, its content undefined. `what` says in an error what it was for. Without
// room the error is a *MemoryError.
func (d *Device) Alloc(what string, bytes int64) (Ptr, error) {
	if d.limit > 0 && bytes > d.limit-d.allocated {
		return 0, &MemoryError{What: what, Device: d.Index, Bytes: bytes, Free: d.limit - d.allocated, InUse: d.allocated, Limited: true}
	}
	p, err := cu.MemAlloc(bytes)
	if err == nil {
		d.allocated += bytes
		d.sizes[Ptr(p)] = bytes
		return Ptr(p), nil
	}
	if code, _ := driver.ResultOf(err); code == driver.OutOfMemory {
		free, total, infoErr := d.MemInfo()
		if infoErr == nil {
			return 0, &MemoryError{What: what, Device: d.Index, Bytes: bytes, Free: free, InUse: total - free}
		}
	}
	return 0, failed(fmt.Sprintf("allocating %s for %s", size(bytes), what), d.Index, err)
}

// Free gives back what Alloc returned; work that uses it must have ended.
func (d *Device) Free(p Ptr) error {
	if err := cu.MemFree(cu.DevicePtr(p)); err != nil {
		return failed("freeing memory", d.Index, err)
	}
	d.allocated -= d.sizes[p]
	delete(d.sizes, p)
	return nil
}

// Allocated is the memory that Alloc has given and Free has not taken back, in bytes. The driver itself, the kernels' code and pinned memory
// are not counted.
func (d *Device) Allocated() int64 { return d.allocated }

// LimitMemory bounds what Alloc gives of each device, in bytes; 0 takes the bound away. What is allocated already counts and stays.
func (m *Machine) LimitMemory(bytes int64) error {
	return m.Each(func(d *Device) error {
		d.limit = bytes
		return nil
	})
}

// AllocPinned reserves host memory that asynchronous copies can use.
func (d *Device) AllocPinned(what string, bytes int64) ([]byte, error) {
	p, err := driver.AllocHost(bytes)
	if err != nil {
		return nil, failed(fmt.Sprintf("allocating %s of pinned host memory for %s", size(bytes), what), d.Index, err)
	}
	return unsafe.Slice((*byte)(p), bytes), nil
}

// FreePinned gives back what AllocPinned returned.
func (d *Device) FreePinned(b []byte) error {
	if err := driver.FreeHost(unsafe.Pointer(unsafe.SliceData(b))); err != nil {
		return failed("freeing pinned memory", d.Index, err)
	}
	return nil
}

// MemInfo is the device's free memory and all of it, in bytes.
func (d *Device) MemInfo() (free, total int64, err error) {
	free, total, err = cu.MemInfo()
	if err != nil {
		return 0, 0, failed("asking for free memory", d.Index, err)
	}
	return free, total, nil
}

// Write copies src to the device and waits for it.
func (d *Device) Write(dst Ptr, src []byte) error {
	if len(src) == 0 {
		return nil
	}
	if err := cu.MemcpyHtoD(cu.DevicePtr(dst), unsafe.Pointer(unsafe.SliceData(src)), int64(len(src))); err != nil {
		return failed(fmt.Sprintf("copying %s to the device", size(int64(len(src)))), d.Index, err)
	}
	// From ordinary memory the driver may return while the last bytes are still in its own buffer (CUDA driver API, "API synchronization
	// behavior"), and a stream that does not wait for the null stream could read the old ones.
	if err := cu.Synchronize(); err != nil {
		return failed("waiting for a copy", d.Index, err)
	}
	return nil
}

// Read copies from the device to dst and waits for it.
func (d *Device) Read(dst []byte, src Ptr) error {
	if len(dst) == 0 {
		return nil
	}
	if err := cu.MemcpyDtoH(unsafe.Pointer(unsafe.SliceData(dst)), cu.DevicePtr(src), int64(len(dst))); err != nil {
		return failed(fmt.Sprintf("copying %s from the device", size(int64(len(dst)))), d.Index, err)
	}
	return nil
}

// Bytes is the memory of v as bytes.
func Bytes[T any](v []T) []byte {
	if len(v) == 0 {
		return nil
	}
	return unsafe.Slice((*byte)(unsafe.Pointer(unsafe.SliceData(v))), len(v)*int(unsafe.Sizeof(v[0])))
}

// Values is a slice of T over the memory of b, whose length must be a multiple of T's size.
func Values[T any](b []byte) []T {
	var zero T
	n := len(b) / int(unsafe.Sizeof(zero))
	if n == 0 {
		return nil
	}
	return unsafe.Slice((*T)(unsafe.Pointer(unsafe.SliceData(b))), n)
}
