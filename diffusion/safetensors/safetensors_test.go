package safetensors

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

func file(header string, data int) []byte {
	b := le.AppendUint64(nil, uint64(len(header)))
	return append(append(b, header...), make([]byte, data)...)
}

func parse(b []byte) (*File, error) { return NewFile(bytes.NewReader(b), int64(len(b))) }

// Each broken file differs from this one in what its name says.
const good = `{"__metadata__":{"format":"pt"},"a":{"dtype":"F32","shape":[2,3],"data_offsets":[0,24]},"b":{"dtype":"U8","shape":[],"data_offsets":[24,25]}}`

func TestReadsAGoodFile(t *testing.T) {
	f, err := parse(file(good+"  ", 25))
	if err != nil {
		t.Fatal(err)
	}
	want := []Info{{"a", F32, []int{2, 3}}, {"b", U8, []int{}}}
	if !reflect.DeepEqual(f.Infos(), want) || f.Metadata["format"] != "pt" || !f.Has("b") || f.Has("c") {
		t.Errorf("%+v %v", f.Infos(), f.Metadata)
	}
	if _, err := f.Read("c"); err == nil {
		t.Error("reading a tensor that is not there must fail")
	}
}

func TestRefuses(t *testing.T) {
	one := func(e string) []byte { return file(`{"a":`+e+`}`, 24) }
	long := le.AppendUint64(nil, maxHeader+1)
	for _, c := range []struct {
		name, says string
		file       []byte
	}{
		{"empty", "too few", nil},
		{"no header", "too few", make([]byte, 7)},
		{"header of zero bytes", "begin with {", file("", 0)},
		{"header too long", "at most 100000000", append(long, make([]byte, 100)...)},
		{"header length 2^64−1", "at most 100000000", bytes.Repeat([]byte{255}, 64)},
		{"header past the end", "the file has only", file(good, 25)[:40]},
		{"not JSON", "not JSON", file(`{"a":`, 24)},
		{"space before", "begin with {", file(" "+good, 25)},
		{"list", "begin with {", file(`[]`, 0)},
		{"two values", "follow the JSON", file(good+good, 25)},
		{"invalid UTF-8", "not UTF-8", file(strings.Replace(good, `"a"`, "\"a\xff\"", 1), 25)},
		{"half a surrogate", "surrogate", file(strings.Replace(good, `"a"`, `"\ud800"`, 1), 25)},
		{"tensor twice", `"a" twice`, file(strings.Replace(good, `"b"`, `"a"`, 1), 25)},
		{"tensor twice by an escape", `"a" twice`, file(strings.Replace(good, `"b"`, `"\u0061"`, 1), 25)},
		{"metadata twice", "twice", file(strings.Replace(good, `"a":{`, `"__metadata__":{},"a":{`, 1), 25)},
		{"metadata key twice", "twice", file(strings.Replace(good, `"pt"`, `"pt","format":"np"`, 1), 25)},
		{"field twice", "twice", one(`{"dtype":"F32","dtype":"F32","shape":[2,3],"data_offsets":[0,24]}`)},
		{"metadata not a string", "not a string", file(strings.Replace(good, `"pt"`, `7`, 1), 25)},
		{"metadata not an object", "not JSON", file(`{"__metadata__":"x"}`, 0)},
		{"entry not an object", "not JSON", one(`7`)},
		{"no dtype", "no dtype", one(`{"shape":[2,3],"data_offsets":[0,24]}`)},
		{"no shape", "not a list", one(`{"dtype":"F32","data_offsets":[0,24]}`)},
		{"null shape", "not a list", one(`{"dtype":"F32","shape":null,"data_offsets":[0,24]}`)},
		{"no offsets", "data_offsets", one(`{"dtype":"F32","shape":[2,3]}`)},
		{"three offsets", "data_offsets", one(`{"dtype":"F32","shape":[2,3],"data_offsets":[0,24,24]}`)},
		{"unknown dtype", "unknown dtype", one(`{"dtype":"F31","shape":[2,3],"data_offsets":[0,24]}`)},
		{"negative size", "not an integer", one(`{"dtype":"F32","shape":[-2,-3],"data_offsets":[0,24]}`)},
		{"fraction", "not an integer", one(`{"dtype":"F32","shape":[2.0,3],"data_offsets":[0,24]}`)},
		{"size in quotes", "not an integer", one(`{"dtype":"F32","shape":["2",3],"data_offsets":[0,24]}`)},
		{"product overflows", "more bytes", one(`{"dtype":"F32","shape":[4294967296,4294967296,6],"data_offsets":[0,24]}`)},
		{"product overflows to the right size", "more bytes", one(`{"dtype":"U8","shape":[4611686018427387904,4,0,1],"data_offsets":[0,0]}`)},
		{"size beyond int64", "not an integer", one(`{"dtype":"F32","shape":[18446744073709551615],"data_offsets":[0,24]}`)},
		{"shape and offsets disagree", "do not", one(`{"dtype":"F32","shape":[2,2],"data_offsets":[0,24]}`)},
		{"offsets reversed", "do not", one(`{"dtype":"F32","shape":[2,3],"data_offsets":[24,0]}`)},
		{"hole", "a hole of 4 bytes", file(strings.Replace(good, "[24,25]", "[28,29]", 1), 29)},
		{"hole at the start", "a hole of 1 bytes", file(`{"a":{"dtype":"U8","shape":[1],"data_offsets":[1,2]}}`, 2)},
		{"overlap", "overlaps", file(strings.Replace(good, "[24,25]", "[23,24]", 1), 24)},
		{"bytes after", "the file has 26", file(good, 26)},
		{"bytes missing", "the file has 24", file(good, 24)},
		{"bytes but no tensor", "the file has 1", file(`{}`, 1)},
	} {
		f, err := parse(c.file)
		var refusal *FormatError
		if !errors.As(err, &refusal) || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %v, %v; want a refusal that says %q", c.name, f, err, c.says)
		}
	}
}

// shortReader has fewer bytes than it says, as a file that is cut while it is read.
type shortReader struct{ b []byte }

func (s shortReader) ReadAt(p []byte, off int64) (int, error) {
	if off >= int64(len(s.b)) {
		return 0, io.EOF
	}
	n := copy(p, s.b[off:])
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

func TestShortReadsAreErrors(t *testing.T) {
	whole := file(good, 25)
	for _, have := range []int{0, 5, 8, 30, len(whole) - 1} {
		f, err := NewFile(shortReader{whole[:have]}, int64(len(whole)))
		if err == nil {
			_, err = f.ReadAll()
		}
		if !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("%d of %d bytes: %v", have, len(whole), err)
		}
	}
}

func TestOpen(t *testing.T) {
	dir := t.TempDir()
	if _, err := Open(filepath.Join(dir, "none")); !errors.Is(err, os.ErrNotExist) {
		t.Error(err)
	}
	if _, err := Open(dir); err == nil || !strings.Contains(err.Error(), "regular") {
		t.Error(err)
	}
	path := filepath.Join(dir, "x.safetensors")
	if err := os.WriteFile(path, file(good, 25), 0o644); err != nil {
		t.Fatal(err)
	}
	f, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	if all, err := f.ReadAll(); err != nil || len(all) != 2 || len(all[0].Data) != 24 {
		t.Error(all, err)
	}
	if err := f.Close(); err != nil {
		t.Error(err)
	}
}

// The bytes that the format's description prescribes for these three tensors.
func TestWriteKnownBytes(t *testing.T) {
	var b bytes.Buffer
	err := Write(&b, []Tensor{
		{"z", U8, []int{1}, []byte{7}},
		FromFloat32s("b", []int{1, 2}, []float32{1, -2}),
		FromFloat32s("a", nil, []float32{0.5}),
	}, map[string]string{"format": "pt"})
	if err != nil {
		t.Fatal(err)
	}
	header := `{"__metadata__":{"format":"pt"},"a":{"dtype":"F32","shape":[],"data_offsets":[0,4]},` +
		`"b":{"dtype":"F32","shape":[1,2],"data_offsets":[4,12]},"z":{"dtype":"U8","shape":[1],"data_offsets":[12,13]}}`
	header += strings.Repeat(" ", (8-len(header)%8)%8)
	want := append(le.AppendUint64(nil, uint64(len(header))), header...)
	want = append(want, 0, 0, 0, 0x3f, 0, 0, 0x80, 0x3f, 0, 0, 0, 0xc0, 7)
	if !bytes.Equal(b.Bytes(), want) {
		t.Errorf("got  %q\nwant %q", b.Bytes(), want)
	}
}

func TestWriteRefuses(t *testing.T) {
	for name, list := range map[string][]Tensor{
		"data too short":   {{"a", F32, []int{2}, make([]byte, 7)}},
		"unknown dtype":    {{"a", "F31", []int{2}, make([]byte, 8)}},
		"negative size":    {{"a", F32, []int{-2, -1}, make([]byte, 8)}},
		"name twice":       {{"a", U8, nil, []byte{1}}, {"a", F32, nil, make([]byte, 4)}},
		"name of metadata": {{metadataKey, U8, nil, []byte{1}}},
		"name not UTF-8":   {{"\xff", U8, nil, []byte{1}}},
	} {
		if err := Write(io.Discard, list, nil); err == nil {
			t.Errorf("%s: want an error", name)
		}
	}
	if err := Write(io.Discard, nil, map[string]string{"k": "\xff"}); err == nil {
		t.Error("metadata that is not UTF-8: want an error")
	}
}

func TestRoundTrip(t *testing.T) {
	dtypes := []DType{Bool, U8, I8, F8E4M3, F8E5M2, U16, I16, F16, BF16, U32, I32, F32, U64, I64, F64}
	rapid.Check(t, func(t *rapid.T) {
		names := rapid.SliceOfDistinct(rapid.String().Filter(func(s string) bool { return s != metadataKey }), rapid.ID).Draw(t, "names")
		list := make([]Tensor, len(names))
		for i, name := range names {
			info := Info{
				Name: name, DType: rapid.SampledFrom(dtypes).Draw(t, "dtype"),
				Shape: rapid.SliceOfN(rapid.IntRange(0, 4), 0, 4).Draw(t, "shape"),
			}
			n := info.Elements() * info.DType.Size()
			list[i] = Tensor{info.Name, info.DType, info.Shape, rapid.SliceOfN(rapid.Byte(), n, n).Draw(t, "data")}
		}
		metadata := rapid.MapOf(rapid.String(), rapid.String()).Draw(t, "metadata")
		var first, second bytes.Buffer
		if err := Write(&first, list, metadata); err != nil {
			t.Fatal(err)
		}
		if err := Write(&second, rapid.Permutation(list).Draw(t, "order"), metadata); err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(first.Bytes(), second.Bytes()) {
			t.Fatal("the order of the tensors changes the bytes")
		}
		f, err := parse(first.Bytes())
		if err != nil {
			t.Fatal(err)
		}
		if !reflect.DeepEqual(f.Metadata, metadata) || len(f.Infos()) != len(list) {
			t.Fatalf("%v, %v", f.Metadata, f.Infos())
		}
		for _, want := range list {
			got, err := f.Read(want.Name)
			if err != nil {
				t.Fatal(err)
			}
			if got.Name != want.Name || got.DType != want.DType || fmt.Sprint(got.Shape) != fmt.Sprint(want.Shape) || !bytes.Equal(got.Data, want.Data) {
				t.Fatalf("got %+v, want %+v", got, want)
			}
		}
	})
}

func TestConversions(t *testing.T) {
	bits16 := func(v ...uint16) (b []byte) {
		for _, x := range v {
			b = le.AppendUint16(b, x)
		}
		return b
	}
	for _, c := range []struct {
		dtype DType
		data  []byte
		want  []float64
	}{
		{F16, bits16(0x3c00, 0xc000, 0x7bff, 0x0001, 0x8000, 0x7c00, 0xfc00, 0x3555, 0x03ff),
			[]float64{1, -2, 65504, 0x1p-24, math.Copysign(0, -1), math.Inf(1), math.Inf(-1), 0.333251953125, 1023 * 0x1p-24}},
		{BF16, bits16(0x3f80, 0xc020, 0x7f80), []float64{1, -2.5, math.Inf(1)}},
		{U8, []byte{0, 255}, []float64{0, 255}},
		{Bool, []byte{0, 1}, []float64{0, 1}},
		{I8, []byte{128, 127}, []float64{-128, 127}},
		{U16, bits16(65535), []float64{65535}},
		{I16, bits16(0x8000), []float64{-32768}},
		{U32, le.AppendUint32(nil, 1<<31), []float64{1 << 31}},
		{I32, le.AppendUint32(nil, 1<<31), []float64{-1 << 31}},
		{U64, le.AppendUint64(nil, 1<<63), []float64{1 << 63}},
		{I64, le.AppendUint64(nil, 1<<63), []float64{-1 << 63}},
		{F32, FromFloat32s("", nil, []float32{-0.1}).Data, []float64{float64(float32(-0.1))}},
		{F64, FromFloat64s("", nil, []float64{-0.1}).Data, []float64{-0.1}},
	} {
		tensor := Tensor{"x", c.dtype, []int{len(c.want)}, c.data}
		got, err := tensor.Float64s()
		if err != nil || !reflect.DeepEqual(got, c.want) {
			t.Errorf("%s: %v (%v), want %v", c.dtype, got, err, c.want)
		}
		narrow, err := tensor.Float32s()
		for i := range narrow {
			if narrow[i] != float32(c.want[i]) {
				t.Errorf("%s: float32 %v, want %v", c.dtype, narrow[i], c.want[i])
			}
		}
		if err != nil || len(narrow) != len(c.want) {
			t.Errorf("%s: float32 %v, %v", c.dtype, narrow, err)
		}
	}
	if nan, _ := (Tensor{"x", F16, nil, bits16(0x7e00)}).Float64s(); !math.IsNaN(nan[0]) {
		t.Error("a half NaN became", nan)
	}
	if _, err := (Tensor{"x", F8E4M3, nil, []byte{1}}).Float64s(); err == nil {
		t.Error("8-bit floats: want an error")
	}
}

// A file that is accepted must survive being written and read again.
func FuzzNewFile(f *testing.F) {
	f.Add(file(good, 25))
	f.Add(file(`{}`, 0))
	f.Add(file(`{"a":{"dtype":"F32","shape":[0],"data_offsets":[0,0]}}`, 0))
	f.Add(file(strings.Replace(good, "[24,25]", "[23,24]", 1), 24))
	f.Fuzz(func(t *testing.T, b []byte) {
		in, err := parse(b)
		if err != nil {
			return
		}
		list, err := in.ReadAll()
		if err != nil {
			t.Fatal(err)
		}
		var out bytes.Buffer
		if err := Write(&out, list, in.Metadata); err != nil {
			t.Fatal(err)
		}
		again, err := parse(out.Bytes())
		if err != nil {
			t.Fatal(err)
		}
		if len(again.Infos()) != len(list) || !reflect.DeepEqual(again.Metadata, in.Metadata) {
			t.Fatalf("%v became %v", in.Infos(), again.Infos())
		}
	})
}
