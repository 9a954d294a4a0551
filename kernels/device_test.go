package kernels

import (
	"testing"

	"ddgpu/gpu"
)

// OnDevice runs f on the thread of the first device of a spec, with a queue of its kernels of a number type. It is also for the tests of package
// kernels_test. That is another goroutine: f fails the test or returns an error, and does not end it.
func OnDevice(t testing.TB, spec string, r Precision, f func(d *gpu.Device, q *Queue) error) {
	t.Helper()
	m, err := gpu.Open(spec)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := m.Close(); err != nil {
			t.Error(err)
		}
	}()
	d := m.Devices[0]
	err = d.Do(func() error {
		l, err := Load(d, r)
		if err != nil {
			return err
		}
		s, err := d.NewStream()
		if err != nil {
			return err
		}
		return f(d, l.NewQueue(s))
	})
	if err != nil {
		t.Fatal(err)
	}
}
