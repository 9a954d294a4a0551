package kernels_test

import (
	"encoding/json"
	"math"
	"strings"
	"testing"

	"ddgpu/diffusion/safetensors"
	"ddgpu/gpu"
	"ddgpu/kernels"
)

// The configurations of the host device.
var tiles = []string{"host", "host,tiles=gpu"}

// harness is memory and a queue on one device.
type harness struct {
	*kernels.Queue
	t *testing.T
	d *gpu.Device
}

// withKernels runs f on the first device of a spec.
func withKernels(t *testing.T, spec string, r kernels.Precision, f func(h *harness)) {
	t.Helper()
	kernels.OnDevice(t, spec, r, func(d *gpu.Device, q *kernels.Queue) error {
		f(&harness{q, t, d})
		return nil
	})
}

// bytes is device memory that holds v.
func (h *harness) bytes(v []byte) gpu.Ptr {
	p, err := h.d.Alloc("test", int64(len(v)))
	if err == nil {
		err = h.d.Write(p, v)
	}
	if err != nil {
		h.t.Error(err)
	}
	return p
}

// reals is device memory that holds v in the queue's number type.
func (h *harness) reals(v []float64) gpu.Ptr { return h.bytes(h.Precision().Bytes(v)) }

// poison is device memory of n NaNs.
func (h *harness) poison(n int) gpu.Ptr {
	v := make([]float64, n)
	for i := range v {
		v[i] = math.NaN()
	}
	return h.reals(v)
}

func (h *harness) state(s kernels.StepState) gpu.Ptr {
	return h.bytes(gpu.Bytes([]kernels.StepState{s}))
}

// read waits for the queue and returns n reals.
func (h *harness) read(p gpu.Ptr, n int) []float64 {
	b := make([]byte, int64(n)*h.Precision().Size())
	for _, err := range []error{h.Err(), h.Stream().Sync(), h.d.Read(b, p)} {
		if err != nil {
			h.t.Error(err)
		}
	}
	return h.Precision().Values(b)
}

// near compares v with want by ‖Δ‖/‖want‖.
func near(t *testing.T, what string, v, want []float64, bound float64) {
	t.Helper()
	var difference, norm float64
	for i := range want {
		difference += (v[i] - want[i]) * (v[i] - want[i])
		norm += want[i] * want[i]
	}
	if e := math.Sqrt(difference / norm); !(e <= bound) {
		t.Errorf("%s: error %.2g, bound %.0e", what, e, bound)
	}
}

func bound(r kernels.Precision) float64 {
	if r == kernels.FP64 {
		return 1e-12
	}
	return 1e-5
}

// golden calls f for every case of a golden file whose operation starts with op, with its attributes decoded into c.
func golden[C any](t *testing.T, file, op string, f func(name string, c C, values func(array string) []float64)) {
	t.Helper()
	vectors, err := safetensors.Open("../testdata/golden/" + file)
	if err != nil {
		t.Error(err)
		return
	}
	defer func() {
		if err := vectors.Close(); err != nil {
			t.Error(err)
		}
	}()
	cases := 0
	for name, text := range vectors.Metadata {
		var c C
		var kind struct{ Op string }
		if !strings.HasPrefix(text, "{") {
			continue
		}
		if err := json.Unmarshal([]byte(text), &kind); err != nil {
			t.Error(err)
			return
		}
		if !strings.HasPrefix(kind.Op, op) {
			continue
		}
		if err := json.Unmarshal([]byte(text), &c); err != nil {
			t.Error(err)
			return
		}
		cases++
		f(name, c, func(array string) []float64 {
			tensor, err := vectors.Read(name + "." + array)
			if err != nil {
				t.Error(err)
				return nil
			}
			v, err := tensor.Float64s()
			if err != nil {
				t.Error(err)
				return nil
			}
			return v
		})
	}
	if cases == 0 {
		t.Errorf("%s has no %s", file, op)
	}
}
