package safetensors

import (
	"encoding/binary"
	"fmt"
	"math"
)

var le = binary.LittleEndian

// FromFloat32s is an F32 tensor with a copy of v.
func FromFloat32s(name string, shape []int, v []float32) Tensor {
	data := make([]byte, 0, 4*len(v))
	for _, x := range v {
		data = le.AppendUint32(data, math.Float32bits(x))
	}
	return Tensor{name, F32, shape, data}
}

// FromFloat64s is an F64 tensor with a copy of v.
func FromFloat64s(name string, shape []int, v []float64) Tensor {
	data := make([]byte, 0, 8*len(v))
	for _, x := range v {
		data = le.AppendUint64(data, math.Float64bits(x))
	}
	return Tensor{name, F64, shape, data}
}

// Float64s converts the elements of any type but the 8-bit floats. 64-bit integers beyond ±2^53 round.
func (t Tensor) Float64s() ([]float64, error) {
	size := t.DType.Size()
	var at func(b []byte) float64
	switch t.DType {
	case Bool, U8:
		at = func(b []byte) float64 { return float64(b[0]) }
	case I8:
		at = func(b []byte) float64 { return float64(int8(b[0])) }
	case U16:
		at = func(b []byte) float64 { return float64(le.Uint16(b)) }
	case I16:
		at = func(b []byte) float64 { return float64(int16(le.Uint16(b))) }
	case F16:
		at = func(b []byte) float64 { return halfToFloat64(le.Uint16(b)) }
	case BF16:
		at = func(b []byte) float64 { return float64(math.Float32frombits(uint32(le.Uint16(b)) << 16)) }
	case U32:
		at = func(b []byte) float64 { return float64(le.Uint32(b)) }
	case I32:
		at = func(b []byte) float64 { return float64(int32(le.Uint32(b))) }
	case F32:
		at = func(b []byte) float64 { return float64(math.Float32frombits(le.Uint32(b))) }
	case U64:
		at = func(b []byte) float64 { return float64(le.Uint64(b)) }
	case I64:
		at = func(b []byte) float64 { return float64(int64(le.Uint64(b))) }
	case F64:
		at = func(b []byte) float64 { return math.Float64frombits(le.Uint64(b)) }
	default:
		return nil, fmt.Errorf("tensor %q: cannot convert dtype %s to float64", t.Name, t.DType)
	}
	v := make([]float64, len(t.Data)/size)
	for i := range v {
		v[i] = at(t.Data[i*size:])
	}
	return v, nil
}

// Float32s converts like Float64s; F64 and integers beyond ±2^24 round.
func (t Tensor) Float32s() ([]float32, error) {
	if t.DType == F32 { // the common case, and it keeps the payload of a NaN
		v := make([]float32, len(t.Data)/4)
		for i := range v {
			v[i] = math.Float32frombits(le.Uint32(t.Data[4*i:]))
		}
		return v, nil
	}
	wide, err := t.Float64s()
	v := make([]float32, len(wide))
	for i, x := range wide {
		v[i] = float32(x)
	}
	return v, err
}

// halfToFloat64 decodes IEEE 754 binary16: 1 sign, 5 exponent (bias 15) and 10 fraction bits.
func halfToFloat64(h uint16) float64 {
	sign := 1 - 2*float64(h>>15)
	exponent, fraction := int(h>>10&31), float64(h&1023)
	switch exponent {
	case 0:
		return sign * fraction * 0x1p-24
	case 31:
		if fraction != 0 {
			return math.NaN()
		}
		return math.Inf(int(sign))
	}
	return sign * math.Ldexp(1+fraction/1024, exponent-15)
}
