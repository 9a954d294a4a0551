package kernels

import (
	"testing"

	"ddgpu/gpu"
)

func TestLoad(t *testing.T) {
	for _, spec := range []string{"host", "host,tiles=gpu"} {
		for _, r := range []Precision{FP32, FP64} {
			OnDevice(t, spec, r, func(_ *gpu.Device, q *Queue) error {
				for _, k := range declared {
					if threads := q.geometry(k)[0]; threads < 1 || threads > 1024 {
						t.Errorf("%s %v: kernel %s has blocks of %d threads", spec, r, k.name, threads)
					}
				}
				return nil
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
		_, err := Load(m.Devices[0], FP32)
		return err
	})
	if err == nil || err.Error() != `kernel add takes the parameters "llll", its launcher passes "pppi"` {
		t.Errorf("got %v", err)
	}
}
