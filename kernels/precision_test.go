package kernels

import (
	"math"
	"slices"
	"testing"
)

func TestPrecisionBytes(t *testing.T) {
	v := []float64{0, -1.5, 1e300, math.Pi, math.Inf(-1)}
	if got := FP64.Values(FP64.Bytes(v)); !slices.Equal(got, v) || &got[0] == &v[0] {
		t.Errorf("fp64: %v", got)
	}
	want := []float64{0, -1.5, math.Inf(1), float64(float32(math.Pi)), math.Inf(-1)}
	if b := FP32.Bytes(v); len(b) != 4*len(v) || !slices.Equal(FP32.Values(b), want) {
		t.Errorf("fp32: %v, want %v", FP32.Values(b), want)
	}
	half := []float64{0, -1.5, math.Inf(1), 3.140625, math.Inf(-1)}
	if b := BF16.Bytes(v); len(b) != 2*len(v) || !slices.Equal(BF16.Values(b), half) {
		t.Errorf("bf16: %v, want %v", BF16.Values(b), half)
	}
	for _, r := range []Precision{FP32, TF32, BF16, FP64} {
		if len(r.Values(r.Bytes(nil))) != 0 {
			t.Errorf("%v: values of nothing", r)
		}
	}
}
