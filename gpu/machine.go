package gpu

import (
	"errors"
	"fmt"
	"os"
	"runtime"

	"gorgonia.org/cu"

	"ddgpu/gpu/driver"
)

// Machine is the open driver with its devices.
type Machine struct {
	Devices []*Device
	// Notice is one line for the user about a choice that the driver made for him, or empty.
	Notice string
	// Host says that the devices are the host device's.
	Host bool
	// PTX says that they interpret the kernels' PTX.
	PTX bool
	// OnCompile, where it is set, is told of kernels that had to be compiled, by one device's thread at a time.
	OnCompile func(Compilation)
}

// Open opens the driver that a spec names (see [driver.ParseSpec]) and all of its devices. A process has one machine at a time.
func Open(spec string) (*Machine, error) {
	notice, err := driver.Open(spec)
	if err != nil {
		return nil, err
	}
	opened, _ := driver.Opened()
	m := &Machine{Notice: notice, Host: opened.Kind != driver.CUDA, PTX: opened.Kind == driver.PTX}
	ordinals, err := ordinalsOf(opened)
	if err != nil {
		driver.Close()
		return nil, err
	}
	compiler := newCompiler(m, os.Getenv)
	for i, ordinal := range ordinals {
		d, err := openDevice(i, ordinal, compiler)
		if err != nil {
			return nil, errors.Join(err, m.Close())
		}
		m.Devices = append(m.Devices, d)
	}
	if err := m.enablePeers(); err != nil {
		return nil, errors.Join(err, m.Close())
	}
	return m, nil
}

// ordinalsOf are the driver's numbers of the devices that a spec names: without one all that the driver shows.
func ordinalsOf(spec driver.Spec) ([]int, error) {
	n, err := cu.NumDevices()
	if err != nil {
		return nil, failed("counting devices", 0, err)
	}
	if len(spec.Ordinals) == 0 {
		all := make([]int, n)
		for i := range all {
			all[i] = i
		}
		return all, nil
	}
	for _, ordinal := range spec.Ordinals {
		if ordinal >= n {
			return nil, &driver.OpenError{Code: driver.InvalidDevice, Message: fmt.Sprintf("%s: there is no device %d, NVIDIA's driver shows %d, counted from 0", spec, ordinal, n)}
		}
	}
	return spec.Ordinals, nil
}

// UUIDs names all devices that the driver shows to this process, those included that the machine was not opened with.
func (m *Machine) UUIDs() ([]string, error) {
	n, err := cu.NumDevices()
	if err != nil {
		return nil, failed("counting devices", 0, err)
	}
	names := make([]string, n)
	for i := range names {
		d, err := cu.GetDevice(i)
		if err == nil {
			names[i], err = driver.UUID(d)
		}
		if err != nil {
			return nil, failed("asking for a UUID", i, err)
		}
	}
	return names, nil
}

// enablePeers lets every device reach every other one's memory where the hardware can; copies between the rest are staged by the driver.
func (m *Machine) enablePeers() error {
	for _, d := range m.Devices {
		err := d.Do(func() error {
			for _, peer := range m.Devices {
				if peer == d {
					continue
				}
				can, err := d.cu.CanAccessPeer(peer.cu)
				if err == nil && can != 0 {
					err = peer.context.EnablePeerAccess(0)
				}
				switch code, _ := driver.ResultOf(err); {
				case err == nil, code == driver.PeerAccessAlreadyEnabled, code == driver.PeerAccessUnsupported, code == driver.TooManyPeers:
				default:
					return failed(fmt.Sprintf("enabling access to device %d", peer.Index), d.Index, err)
				}
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// Close releases the devices and the driver. Memory, streams and modules of the devices go with their contexts.
func (m *Machine) Close() error {
	var errs []error
	for _, d := range m.Devices {
		errs = append(errs, d.close())
	}
	m.Devices = nil
	driver.Close()
	return errors.Join(errs...)
}

// Device is one GPU, or one host device.
type Device struct {
	Index           int // position in Machine.Devices
	Ordinal         int // the driver's number
	Name            string
	UUID            string // GPU-… or, for a part of a GPU, MIG-…, whatever number the device has in this process
	Major, Minor    int    // compute capability
	Multiprocessors int
	Total           int64 // bytes of memory

	cu         cu.Device
	context    cu.CUContext
	optIn      int // most dynamic shared memory per block, bytes
	compiler   *compiler
	rehearsing bool // of a capture: streams queue nothing

	limit     int64         // of what Alloc gives, bytes; 0 for none
	allocated int64         // what Alloc has given, bytes
	sizes     map[Ptr]int64 // of each allocation

	calls    chan call
	stop     chan struct{} // closed to end the thread
	finished chan struct{} // closed when it has ended
}

// call is a function on its way to the device's thread.
type call struct {
	f    func() error
	done chan error
}

func openDevice(index, ordinal int, compiler *compiler) (*Device, error) {
	d := &Device{Index: index, Ordinal: ordinal, compiler: compiler, sizes: map[Ptr]int64{}, calls: make(chan call), stop: make(chan struct{}), finished: make(chan struct{})}
	opened := make(chan error)
	go d.serve(opened)
	if err := <-opened; err != nil {
		<-d.finished
		return nil, failed(fmt.Sprintf("opening device %d", ordinal), index, err)
	}
	return d, nil
}

// serve owns the device's thread from open to close.
func (d *Device) serve(opened chan<- error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	defer close(d.finished)
	err := d.open()
	opened <- err
	if err != nil {
		return
	}
	for {
		select {
		case c := <-d.calls:
			c.run()
		case <-d.stop:
			return
		}
	}
}

// errEnded is what callers get of a device whose thread is gone: after Close, or when a function ended its goroutine as t.Fatal does.
var errEnded = errors.New("the device's thread has ended")

func (c call) run() {
	err := errEnded
	defer func() { c.done <- err }()
	err = c.f()
}

func (d *Device) open() (err error) {
	if d.cu, err = cu.GetDevice(d.Ordinal); err != nil {
		return err
	}
	if d.context, err = d.cu.RetainPrimaryCtx(); err != nil {
		return err
	}
	defer func() {
		if err != nil {
			_ = errors.Join(cu.SetCurrentContext(cu.CUContext{}), d.cu.ReleasePrimaryCtx()) // err says more
		}
	}()
	if err = cu.SetCurrentContext(d.context); err != nil {
		return err
	}
	if d.Name, err = d.cu.Name(); err != nil {
		return err
	}
	if d.UUID, err = driver.UUID(d.cu); err != nil {
		return err
	}
	if d.Total, err = d.cu.TotalMem(); err != nil {
		return err
	}
	if d.Major, d.Minor, err = d.cu.ComputeCapability(); err != nil {
		return err
	}
	if d.Multiprocessors, err = d.cu.Attribute(cu.MultiprocessorCount); err != nil {
		return err
	}
	d.optIn, err = driver.MaxSharedPerBlockOptIn(d.cu)
	return err
}

func (d *Device) close() error {
	err := d.Do(func() error {
		if err := cu.SetCurrentContext(cu.CUContext{}); err != nil {
			return err
		}
		return d.cu.ReleasePrimaryCtx()
	})
	close(d.stop)
	<-d.finished
	if err != nil {
		return failed("releasing the context", d.Index, err)
	}
	return nil
}

// Do runs f on the device's thread and returns its error. Calls from several goroutines run one after another.
func (d *Device) Do(f func() error) error {
	return <-d.start(f)
}

// start hands f to the device's thread and returns where its error will come.
func (d *Device) start(f func() error) <-chan error {
	c := call{f, make(chan error, 1)}
	d.send(c)
	return c.done
}

// send hands a call to the device's thread, or answers it when that is gone.
func (d *Device) send(c call) {
	select {
	case d.calls <- c:
	case <-d.finished:
		c.done <- errEnded
	}
}

// Each runs f on every device at the same time, each on its own thread, and joins the errors.
func (m *Machine) Each(f func(d *Device) error) error {
	done := make([]<-chan error, len(m.Devices))
	for i, d := range m.Devices {
		done[i] = d.start(func() error { return f(d) })
	}
	errs := make([]error, len(done))
	for i := range done {
		errs[i] = <-done[i]
	}
	return errors.Join(errs...)
}
