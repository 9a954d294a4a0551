package gpu

import (
	"fmt"

	"gorgonia.org/cu"

	"ddgpu/gpu/driver"
)

// Module is loaded PTX.
type Module struct {
	device *Device
	name   string
	cu     cu.Module
}

// LoadModule compiles PTX text for the device, or takes what was made of it before; the error holds what the driver's compiler said.
func (d *Device) LoadModule(name, ptx string) (*Module, error) {
	m, err := d.compiler.load(d, name, ptx)
	if err != nil {
		return nil, failed("loading kernels "+name, d.Index, err)
	}
	return &Module{d, name, m}, nil
}

// Close unloads the module.
func (m *Module) Close() error {
	if err := m.cu.Unload(); err != nil {
		return failed("unloading kernels "+m.name, m.device.Index, err)
	}
	return nil
}

// Function is a kernel.
type Function struct {
	Name    string
	device  *Device
	cu      cu.Function
	dynamic int // dynamic shared memory that is allowed, bytes
}

// sharedDefault is the dynamic shared memory that a kernel may use without opting in, in bytes.
const sharedDefault = 48 << 10

// Function finds a kernel by its entry's name.
func (m *Module) Function(name string) (*Function, error) {
	f, err := m.cu.Function(name)
	if err != nil {
		return nil, failed(fmt.Sprintf("finding kernel %s in %s", name, m.name), m.device.Index, err)
	}
	return &Function{name, m.device, f, sharedDefault}, nil
}

// Ints reads a constant table of 32-bit integers.
func (m *Module) Ints(name string) ([]int32, error) {
	p, bytes, err := m.cu.Global(name)
	if err != nil {
		return nil, failed(fmt.Sprintf("finding table %s in %s", name, m.name), m.device.Index, err)
	}
	table := make([]int32, bytes/4)
	return table, m.device.Read(Bytes(table), Ptr(p))
}

// AllowShared opts in to so many bytes of dynamic shared memory where more than 48 KB are needed.
func (f *Function) AllowShared(bytes int) error {
	if bytes <= f.dynamic {
		return nil
	}
	if bytes > f.device.optIn {
		return &Error{Op: fmt.Sprintf("kernel %s needs %s of shared memory, a block has %s", f.Name, size(int64(bytes)), size(int64(f.device.optIn))),
			Device: f.device.Index, Err: driver.LaunchOutOfResources}
	}
	if err := driver.FuncSetAttribute(f.cu, driver.MaxDynamicShared, bytes); err != nil {
		return failed(fmt.Sprintf("allowing kernel %s %s of shared memory", f.Name, size(int64(bytes))), f.device.Index, err)
	}
	f.dynamic = bytes
	return nil
}

// Launch queues a kernel. Each argument is an 8-byte slot, its low bytes first.
func (s *Stream) Launch(f *Function, grid, block [3]int, shared int, args []uint64) error {
	if s.device.rehearsing {
		return nil
	}
	if err := driver.Launch(f.cu, grid, block, shared, s.cu, args); err != nil {
		return failed(fmt.Sprintf("launching kernel %s, grid %v, block %v", f.Name, grid, block), s.device.Index, err)
	}
	return nil
}
