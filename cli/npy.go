package main

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"regexp"
	"strconv"
	"strings"
)

// array is the content of a .npy file: little-endian elements of one type, last index fastest.
type array struct {
	Shape []int
	Type  string // as NumPy writes it: <f4, <f8, <i4, <i8, |u1
	Data  []byte
}

// npyError is a .npy file that cannot be used.
type npyError struct {
	path string
	err  error
}

func (e npyError) Error() string { return fmt.Sprintf("reading %s: %v", e.path, e.err) }
func (e npyError) Unwrap() error { return e.err }

// maxHeader bounds the header of a .npy file; NumPy itself refuses to parse more than 10,000 bytes.
const maxHeader = 10_000

var elementSize = map[string]int{"<f4": 4, "<f8": 8, "<i4": 4, "<i8": 8, "|u1": 1}

var (
	npyMagic = []byte("\x93NUMPY")
	npyDict  = regexp.MustCompile(`^\{'descr': '([^']*)', 'fortran_order': (True|False), 'shape': \(([0-9, ]*)\), \} *\n$`)
)

// readNPY reads a whole file. The size of the file bounds what is allocated.
func readNPY(path string) (*array, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, npyError{path, errors.Unwrap(err)}
	}
	a, err := parseNPY(text)
	if err != nil {
		return nil, npyError{path, err}
	}
	return a, nil
}

// parseNPY reads formats 1.0 to 3.0 of https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html.
func parseNPY(text []byte) (*array, error) {
	if len(text) < 12 || !bytes.HasPrefix(text, npyMagic) {
		return nil, errors.New("not a .npy file")
	}
	var length, start int
	switch text[6] {
	case 1:
		length, start = int(binary.LittleEndian.Uint16(text[8:])), 10
	case 2, 3:
		length, start = int(binary.LittleEndian.Uint32(text[8:])), 12
	default:
		return nil, fmt.Errorf("format version %d is unknown", text[6])
	}
	if length > maxHeader || length > len(text)-start {
		return nil, errors.New("the header is cut short or too long")
	}
	match := npyDict.FindSubmatch(text[start : start+length])
	if match == nil {
		return nil, errors.New("the header is not a description of one array")
	}
	a := &array{Type: string(match[1]), Data: text[start+length:]}
	size, ok := elementSize[a.Type]
	if !ok {
		return nil, fmt.Errorf("elements are %s; float32, float64, int32, int64 and uint8 (little-endian) can be read", a.Type)
	}
	if string(match[2]) == "True" {
		return nil, errors.New("the array is in Fortran order: save numpy.ascontiguousarray of it")
	}
	bytesLeft := len(a.Data)
	for _, word := range strings.Split(string(match[3]), ",") {
		if word = strings.TrimSpace(word); word == "" {
			continue
		}
		n, err := strconv.Atoi(word)
		if err != nil || n < 1 {
			return nil, fmt.Errorf("a dimension of the array is %s", word)
		}
		if n > bytesLeft {
			return nil, errors.New("the file is cut short")
		}
		bytesLeft /= n
		a.Shape = append(a.Shape, n)
	}
	if want := a.Len() * size; want != len(a.Data) {
		return nil, fmt.Errorf("%d bytes of elements, the shape %v needs %d", len(a.Data), a.Shape, want)
	}
	return a, nil
}

// Len is the number of elements.
func (a *array) Len() int {
	n := 1
	for _, d := range a.Shape {
		n *= d
	}
	return n
}

// At is element i as a float64, which holds float32, float64, int32 and uint8 exactly.
func (a *array) At(i int) float64 {
	switch a.Type {
	case "<f4":
		return float64(math.Float32frombits(binary.LittleEndian.Uint32(a.Data[4*i:])))
	case "<f8":
		return math.Float64frombits(binary.LittleEndian.Uint64(a.Data[8*i:]))
	case "<i4":
		return float64(int32(binary.LittleEndian.Uint32(a.Data[4*i:])))
	case "<i8":
		return float64(int64(binary.LittleEndian.Uint64(a.Data[8*i:])))
	default:
		return float64(a.Data[i])
	}
}

// float32Array holds values as they are.
func float32Array(shape []int, values []float32) *array {
	data := make([]byte, 0, 4*len(values))
	for _, v := range values {
		data = binary.LittleEndian.AppendUint32(data, math.Float32bits(v))
	}
	return &array{shape, "<f4", data}
}

// float64Array and int32Array likewise.
func float64Array(shape []int, values []float64) *array {
	data := make([]byte, 0, 8*len(values))
	for _, v := range values {
		data = binary.LittleEndian.AppendUint64(data, math.Float64bits(v))
	}
	return &array{shape, "<f8", data}
}

func int32Array(values []int32) *array {
	data := make([]byte, 0, 4*len(values))
	for _, v := range values {
		data = binary.LittleEndian.AppendUint32(data, uint32(v))
	}
	return &array{[]int{len(values)}, "<i4", data}
}

// Float64s is all elements.
func (a *array) Float64s() []float64 {
	values := make([]float64, a.Len())
	for i := range values {
		values[i] = a.At(i)
	}
	return values
}

// float32s is the array rounded to float32.
func (a *array) float32s() *array {
	values := make([]float32, a.Len())
	for i := range values {
		values[i] = float32(a.At(i))
	}
	return float32Array(a.Shape, values)
}

// WriteTo writes format 1.0, with the header padded so that the elements begin at a multiple of 64 bytes.
func (a *array) WriteTo(w io.Writer) (int64, error) {
	words := make([]string, len(a.Shape))
	for i, n := range a.Shape {
		words[i] = strconv.Itoa(n)
	}
	shape := strings.Join(words, ", ")
	if len(a.Shape) == 1 {
		shape += ","
	}
	dict := fmt.Sprintf("{'descr': '%s', 'fortran_order': False, 'shape': (%s), }", a.Type, shape)
	dict += strings.Repeat(" ", (64-(10+len(dict)+1)%64)%64) + "\n"
	header := append([]byte{}, npyMagic...)
	header = append(header, 1, 0)
	header = binary.LittleEndian.AppendUint16(header, uint16(len(dict)))
	header = append(header, dict...)
	n, err := w.Write(header)
	if err != nil {
		return int64(n), err
	}
	m, err := w.Write(a.Data)
	return int64(n + m), err
}

// writeNPY writes a file completely or not at all.
func writeNPY(path string, a *array) error {
	return writeFile(path, func(w io.Writer) error { _, err := a.WriteTo(w); return err })
}
