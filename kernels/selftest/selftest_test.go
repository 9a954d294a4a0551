package selftest

import (
	"testing"

	"ddgpu/gpu"
	"ddgpu/kernels"
)

// runOn runs the selftest on the first device of a spec.
func runOn(t *testing.T, spec string, r kernels.Real, o Options) []Result {
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
	results, err := Run(m.Devices[0], r, o)
	if err != nil {
		t.Fatalf("%s %v: %v", spec, r, err)
	}
	for _, result := range results {
		if !result.Pass() {
			t.Errorf("%s %v: %v", spec, r, result)
		}
	}
	return results
}

func TestKernels(t *testing.T) {
	runOn(t, "host", kernels.F32, Options{})
}
