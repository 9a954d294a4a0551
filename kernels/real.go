package kernels

import "ddgpu/gpu"

// Real is the number type of activations, weights and gradients.
type Real int

// The number types. F64 exists on the host device only, for the checks of gradients.
const (
	F32 Real = iota
	F64
)

// Size is the bytes of one value.
func (r Real) Size() int64 {
	if r == F64 {
		return 8
	}
	return 4
}

func (r Real) String() string {
	if r == F64 {
		return "f64"
	}
	return "f32"
}

// Bytes is v in the number type as it lies in memory: v's own memory for F64.
func (r Real) Bytes(v []float64) []byte {
	if r == F64 {
		return gpu.Bytes(v)
	}
	narrow := make([]float32, len(v))
	for i, x := range v {
		narrow[i] = float32(x)
	}
	return gpu.Bytes(narrow)
}

// Values is the numbers in b, copied.
func (r Real) Values(b []byte) []float64 {
	v := make([]float64, int64(len(b))/r.Size())
	if r == F64 {
		copy(v, gpu.Values[float64](b))
		return v
	}
	for i, x := range gpu.Values[float32](b) {
		v[i] = float64(x)
	}
	return v
}
