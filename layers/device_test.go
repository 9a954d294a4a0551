package layers

import (
	"math"
	"testing"

	"ddgpu/gpu"
	"ddgpu/kernels"
)

// machine is a host device with the kernels of a number type.
type machine struct {
	t       testing.TB
	device  *gpu.Device
	library *kernels.Library
	queue   *kernels.Queue
}

// failure carries an error out of Do, on whose goroutine a test must not end.
type failure struct{ err error }

// onHost runs f on the thread of a host device.
func onHost(t testing.TB, real kernels.Precision, f func(m *machine)) {
	t.Helper()
	onDevice(t, "host", real, f)
}

// onDevice runs f on the thread of a device.
func onDevice(t testing.TB, spec string, real kernels.Precision, f func(m *machine)) {
	t.Helper()
	g, err := gpu.Open(spec)
	if err != nil {
		t.Fatal(err)
	}
	defer g.Close()
	d := g.Devices[0]
	err = d.Do(func() (err error) {
		defer func() {
			if r := recover(); r != nil {
				e, ok := r.(failure)
				if !ok {
					panic(r)
				}
				err = e.err
			}
		}()
		m := &machine{t: t, device: d}
		m.library, err = kernels.Load(d, real)
		m.check(err)
		stream, err := d.NewStream()
		m.check(err)
		m.queue = m.library.NewQueue(stream)
		f(m)
		return m.queue.Err()
	})
	if err != nil {
		t.Fatal(err)
	}
}

func (m *machine) check(err error) {
	if err != nil {
		panic(failure{err})
	}
}

func (m *machine) sync() {
	m.check(m.queue.Err())
	m.check(m.queue.Stream().Sync())
}

func (m *machine) write(p gpu.Ptr, v []float64) {
	m.check(m.device.Write(p, m.library.Precision().Bytes(v)))
}

func (m *machine) read(p gpu.Ptr, n int64) []float64 {
	b := make([]byte, n*m.library.Precision().Size())
	m.check(m.device.Read(b, p))
	return m.library.Precision().Values(b)
}

// upload makes a copy of v on the device.
func (m *machine) upload(v []float64) gpu.Ptr {
	p, err := m.device.Alloc("test", int64(len(v))*m.library.Precision().Size())
	m.check(err)
	m.write(p, v)
	return p
}

// poisoned is memory for n reals that hold NaN.
func (m *machine) poisoned(n int64) gpu.Ptr {
	v := make([]float64, n)
	for i := range v {
		v[i] = math.NaN()
	}
	return m.upload(v)
}
