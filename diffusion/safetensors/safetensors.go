// Package safetensors reads and writes the safetensors format: named arrays behind a JSON
// header, with no code in the file and no copy needed to read one array.
//
//	u64 little-endian   length n of the header, at most 100,000,000
//	n bytes             {"name": {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]}, …,
//	                     "__metadata__": {"key": "value"}}, padded with spaces
//	the rest            the arrays, row-major and little-endian, without holes
//
// The reader trusts nothing: every number of the header is checked before it is used.
package safetensors

import (
	"fmt"
	"math"
	"math/bits"
)

// DType is an element type by its name in the format.
type DType string

// The element types of the format.
const (
	Bool   DType = "BOOL"
	U8     DType = "U8"
	I8     DType = "I8"
	F8E4M3 DType = "F8_E4M3"
	F8E5M2 DType = "F8_E5M2"
	U16    DType = "U16"
	I16    DType = "I16"
	F16    DType = "F16"
	BF16   DType = "BF16"
	U32    DType = "U32"
	I32    DType = "I32"
	F32    DType = "F32"
	U64    DType = "U64"
	I64    DType = "I64"
	F64    DType = "F64"
)

// Size is the bytes of one element, 0 for an unknown type.
func (d DType) Size() int {
	switch d {
	case Bool, U8, I8, F8E4M3, F8E5M2:
		return 1
	case U16, I16, F16, BF16:
		return 2
	case U32, I32, F32:
		return 4
	case U64, I64, F64:
		return 8
	}
	return 0
}

// Info is an array without its data.
type Info struct {
	Name  string
	DType DType
	Shape []int // row-major; empty for a scalar
}

// Elements is the number of elements.
func (i Info) Elements() int {
	n := 1
	for _, d := range i.Shape {
		n *= d
	}
	return n
}

// byteCount is elements × size, or an error where that overflows or the type is unknown.
func (i Info) byteCount() (int64, error) {
	size := i.DType.Size()
	if size == 0 {
		return 0, fmt.Errorf("tensor %q has the unknown dtype %q", i.Name, i.DType)
	}
	n, zero := uint64(size), false
	for _, d := range i.Shape {
		if d < 0 {
			return 0, fmt.Errorf("tensor %q has a negative size in shape %v", i.Name, i.Shape)
		}
		if d == 0 {
			zero = true
			continue
		}
		hi, lo := bits.Mul64(n, uint64(d))
		if hi != 0 || lo > math.MaxInt64 {
			return 0, fmt.Errorf("tensor %q has more bytes than a file can: shape %v of %s", i.Name, i.Shape, i.DType)
		}
		n = lo
	}
	if zero {
		return 0, nil
	}
	return int64(n), nil
}

// Tensor is an array with its data as it lies in the file: little-endian, row-major.
type Tensor struct {
	Name  string
	DType DType
	Shape []int
	Data  []byte
}

// Info is t without its data.
func (t Tensor) Info() Info { return Info{t.Name, t.DType, t.Shape} }
