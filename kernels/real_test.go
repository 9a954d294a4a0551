package kernels

import (
	"math"
	"slices"
	"testing"
)

func TestRealBytes(t *testing.T) {
	v := []float64{0, -1.5, 1e300, math.Pi, math.Inf(-1)}
	if got := F64.Values(F64.Bytes(v)); !slices.Equal(got, v) || &got[0] == &v[0] {
		t.Errorf("f64: %v", got)
	}
	want := []float64{0, -1.5, math.Inf(1), float64(float32(math.Pi)), math.Inf(-1)}
	if b := F32.Bytes(v); len(b) != 4*len(v) || !slices.Equal(F32.Values(b), want) {
		t.Errorf("f32: %v, want %v", F32.Values(b), want)
	}
	for _, r := range []Real{F32, F64} {
		if len(r.Values(r.Bytes(nil))) != 0 {
			t.Errorf("%v: values of nothing", r)
		}
	}
}
