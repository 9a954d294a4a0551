package main

import (
	"bytes"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
)

// numpyFile is what NumPy 2.4 writes for np.save(f, np.arange(6, dtype='<f4').reshape(2, 3)).
var numpyFile = []byte("\x93NUMPY\x01\x00v\x00{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3), }" + strings.Repeat(" ", 58) + "\n" +
	"\x00\x00\x00\x00\x00\x00\x80?\x00\x00\x00@\x00\x00@@\x00\x00\x80@\x00\x00\xa0@")

func TestNPYIsNumPys(t *testing.T) {
	a, err := parseNPY(numpyFile)
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(a.Shape, []int{2, 3}) || a.At(5) != 5 {
		t.Errorf("shape %v, last element %v", a.Shape, a.At(5))
	}
	var b bytes.Buffer
	if _, err := float32Array([]int{2, 3}, []float32{0, 1, 2, 3, 4, 5}).WriteTo(&b); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(b.Bytes(), numpyFile) {
		t.Errorf("wrote %q\nwant  %q", b.Bytes(), numpyFile)
	}
}

func TestNPYRoundTrip(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a.npy")
	for _, a := range []*array{
		float32Array([]int{4}, []float32{1, -2, 3e38, 1e-45}),
		{[]int{2}, "<f8", []byte("\x00\x00\x00\x00\x00\x00\xf8?\x00\x00\x00\x00\x00\x00\x00\xc0")},
		{[]int{2, 1}, "<i4", []byte("\xff\xff\xff\xff\x07\x00\x00\x00")},
		{[]int{1}, "<i8", []byte("\xfe\xff\xff\xff\xff\xff\xff\xff")},
		{[]int{1, 1, 2, 1}, "|u1", []byte{200, 3}},
	} {
		if err := writeNPY(path, a); err != nil {
			t.Fatal(err)
		}
		got, err := readNPY(path)
		if err != nil {
			t.Fatal(err)
		}
		if !reflect.DeepEqual(got, a) {
			t.Errorf("wrote %+v, read %+v", a, got)
		}
	}
	for _, test := range []struct {
		a     array
		first float64
	}{
		{array{[]int{1}, "<f8", []byte("\x00\x00\x00\x00\x00\x00\xf8?")}, 1.5},
		{array{[]int{1}, "<i4", []byte("\xff\xff\xff\xff")}, -1},
		{array{[]int{1}, "<i8", []byte("\xfe\xff\xff\xff\xff\xff\xff\xff")}, -2},
		{array{[]int{1}, "|u1", []byte{200}}, 200},
	} {
		if got := test.a.At(0); got != test.first {
			t.Errorf("first element of %s is %v, want %v", test.a.Type, got, test.first)
		}
	}
}

func TestNPYRefuses(t *testing.T) {
	file := string(numpyFile)
	for name, test := range map[string]struct{ text, want string }{
		"empty":           {"", "not a .npy file"},
		"text":            {"hello, this is text", "not a .npy file"},
		"cut in header":   {file[:40], "cut short"},
		"cut in elements": {file[:len(file)-1], "needs 24"},
		"too many bytes":  {file + "x", "needs 24"},
		"version":         {file[:6] + "\x09" + file[7:], "version 9"},
		"type":            {strings.Replace(file, "<f4", "<c8", 1), "<c8"},
		"big-endian":      {strings.Replace(file, "<f4", ">f4", 1), ">f4"},
		"Fortran":         {strings.Replace(file, "False,", "True, ", 1), "not a description"},
		"Fortran order":   {strings.Replace(file, "False, 'shape': (2, 3), } ", "True, 'shape': (2, 3), }  ", 1), "ascontiguousarray"},
		"objects":         {strings.Replace(file, "'<f4'", "['x']", 1), "not a description"},
		"huge shape":      {strings.Replace(file, "(2, 3), }          ", "(9999999999, 3), } ", 1), "cut short"},
		"overflow":        {strings.Replace(file, "(2, 3), }"+strings.Repeat(" ", 30), "(4611686018427387904, 4, 2, 3), }      ", 1), "cut short"},
		"zero":            {strings.Replace(file, "(2, 3)", "(0, 3)", 1), "is 0"},
	} {
		if _, err := parseNPY([]byte(test.text)); err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: error %v, want one with %q", name, err, test.want)
		}
	}
}

func FuzzNPY(f *testing.F) {
	f.Add(numpyFile)
	f.Fuzz(func(_ *testing.T, text []byte) {
		a, err := parseNPY(text)
		if err != nil {
			return
		}
		for i := range a.Len() {
			a.At(i)
		}
	})
}
