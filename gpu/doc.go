// Package gpu holds what a program needs of its devices: their memory, streams, events, modules and graphs.
//
// A [Machine] is the open driver with its devices. Each [Device] has one OS thread of its own, on which its primary context is current;
// [Device.Do] runs a function there, and every call that touches the device (allocations, copies, launches) is made inside Do. The driver
// enforces it: elsewhere no context is current, which is an error.
//
//	machine, err := gpu.Open("auto")
//	device := machine.Devices[0]
//	err = device.Do(func() error {
//		p, err := device.Alloc("activations", 1<<20)
//		…
//	})
//
// Whether the devices are NVIDIA's or the host device, which runs the same kernels on the CPU, is decided by package gpu/driver.
package gpu
