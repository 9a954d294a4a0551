package kernels

import (
	"fmt"
	"math"

	"ddgpu/gpu"
)

// Precision is the number types of a network: what activations and their gradients are stored as, and what matrix products take. Parameters,
// their gradients, moments, statistics and sums are float32 in all of them, but float64 in FP64.
type Precision int

// The precisions. TF32 stores float32 and takes 10 bits of its fraction into matrix products on tensor cores; BF16 stores bfloat16, and copies
// of the weights for matrix products in it. FP64 exists on the host device only, for the checks of gradients.
const (
	FP32 Precision = iota
	TF32
	BF16
	FP64
)

var precisionNames = [...]string{"fp32", "tf32", "bf16", "fp64"}

func (p Precision) String() string { return precisionNames[p] }

// ParsePrecision reads fp32, tf32, bf16 or fp64.
func ParsePrecision(name string) (Precision, error) {
	for i, n := range precisionNames {
		if n == name {
			return Precision(i), nil
		}
	}
	return 0, fmt.Errorf("precision %q: want fp32, tf32, bf16 or fp64", name)
}

// Tensor says whether matrix products are for tensor cores.
func (p Precision) Tensor() bool { return p == TF32 || p == BF16 }

// Capability is the least compute capability, as major·10 + minor, of a GPU that has the precision; 0 for none.
func (p Precision) Capability() int {
	switch p {
	case FP32:
		return 70
	case TF32, BF16:
		return 80
	}
	return 0
}

// Size is the bytes of an activation.
func (p Precision) Size() int64 {
	switch p {
	case BF16:
		return 2
	case FP64:
		return 8
	}
	return 4
}

// AccSize is the bytes of a parameter, a gradient of one, a statistic.
func (p Precision) AccSize() int64 {
	if p == FP64 {
		return 8
	}
	return 4
}

// Round rounds to what an activation can be.
func (p Precision) Round(x float64) float64 {
	switch p {
	case FP64:
		return x
	case BF16:
		return float64(math.Float32frombits(uint32(bf16Bits(float32(x))) << 16))
	}
	return float64(float32(x))
}

// bf16Bits rounds to nearest even; every NaN becomes 0x7fff, as on a GPU.
func bf16Bits(x float32) uint16 {
	b := math.Float32bits(x)
	if x != x {
		return 0x7fff
	}
	return uint16((b + 0x7fff + b>>16&1) >> 16)
}

// Bytes is v as activations lie in memory: v's own memory for FP64.
func (p Precision) Bytes(v []float64) []byte {
	if p != BF16 {
		return p.AccBytes(v)
	}
	half := make([]uint16, len(v))
	for i, x := range v {
		half[i] = bf16Bits(float32(x))
	}
	return gpu.Bytes(half)
}

// Values is the activations in b, copied.
func (p Precision) Values(b []byte) []float64 {
	if p != BF16 {
		return p.AccValues(b)
	}
	v := make([]float64, len(b)/2)
	for i, x := range gpu.Values[uint16](b) {
		v[i] = float64(math.Float32frombits(uint32(x) << 16))
	}
	return v
}

// AccBytes is v as parameters and statistics lie in memory: v's own memory for FP64.
func (p Precision) AccBytes(v []float64) []byte {
	if p == FP64 {
		return gpu.Bytes(v)
	}
	narrow := make([]float32, len(v))
	for i, x := range v {
		narrow[i] = float32(x)
	}
	return gpu.Bytes(narrow)
}

// AccValues is the parameters or statistics in b, copied.
func (p Precision) AccValues(b []byte) []float64 {
	v := make([]float64, int64(len(b))/p.AccSize())
	if p == FP64 {
		copy(v, gpu.Values[float64](b))
		return v
	}
	for i, x := range gpu.Values[float32](b) {
		v[i] = float64(x)
	}
	return v
}
