package kernels

import (
	"testing"

	"ddgpu/gpu"
)

// onDevice opens the first device of a spec with the kernels of a number type and runs f on its thread.
func onDevice(t *testing.T, spec string, r Real, f func(d *gpu.Device, q *Queue)) {
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
		q := l.NewQueue(s)
		f(d, q)
		return q.Err()
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestLoad(t *testing.T) {
	for _, spec := range []string{"host", "host,tiles=gpu"} {
		for _, r := range []Real{F32, F64} {
			onDevice(t, spec, r, func(_ *gpu.Device, q *Queue) {
				for _, k := range declared {
					if threads := q.geometry(k)[0]; threads < 1 || threads > 1024 {
						t.Errorf("%s %v: kernel %s has blocks of %d threads", spec, r, k.name, threads)
					}
				}
			})
		}
	}
}

func TestLauncherThatForgotAnArgument(t *testing.T) {
	wrong := declare("add", "pppi")
	defer func() { declared = declared[:wrong.index] }()
	m, err := gpu.Open("host")
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	err = m.Devices[0].Do(func() error {
		_, err := Load(m.Devices[0], F32)
		return err
	})
	if err == nil || err.Error() != `kernel add takes the parameters "llll", its launcher passes "pppi"` {
		t.Errorf("got %v", err)
	}
}
