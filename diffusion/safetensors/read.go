package safetensors

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

// maxHeader is the format's own limit on the JSON header, in bytes.
const maxHeader = 100_000_000

// metadataKey is the one key of the header that is no tensor.
const metadataKey = "__metadata__"

// FormatError is a file that is not valid safetensors.
type FormatError struct{ Reason string }

func (e *FormatError) Error() string { return "not a valid safetensors file: " + e.Reason }

func refuse(format string, args ...any) error { return &FormatError{fmt.Sprintf(format, args...)} }

type entry struct {
	Info
	begin, end int64 // in the data section
}

// File is an open safetensors file. Its header is in memory, its arrays are read when asked for.
type File struct {
	Metadata map[string]string

	r       io.ReaderAt
	closer  io.Closer
	data    int64   // offset of the data section
	entries []entry // by offset
	byName  map[string]int
}

// Open opens a file and reads its header.
func Open(path string) (*File, error) {
	osFile, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	stat, err := osFile.Stat()
	if err == nil && !stat.Mode().IsRegular() {
		err = refuse("it is not a regular file")
	}
	var f *File
	if err == nil {
		f, err = NewFile(osFile, stat.Size())
	}
	if err != nil {
		osFile.Close()
		return nil, fmt.Errorf("opening %s: %w", path, err)
	}
	f.closer = osFile
	return f, nil
}

// NewFile reads the header of a file of size bytes and checks that it describes exactly those.
func NewFile(r io.ReaderAt, size int64) (*File, error) {
	var prefix [8]byte
	if size < 8 {
		return nil, refuse("%d bytes are too few for the length of the header", size)
	}
	if err := readFull(r, prefix[:], 0); err != nil {
		return nil, fmt.Errorf("reading the length of the header: %w", err)
	}
	n := le.Uint64(prefix[:])
	if n > maxHeader {
		return nil, refuse("the header has %d bytes, at most %d are allowed", n, maxHeader)
	}
	if int64(n) > size-8 {
		return nil, refuse("the header has %d bytes, but the file has only %d", n, size)
	}
	header := make([]byte, n) // bounded by maxHeader and by the size of the file
	if err := readFull(r, header, 8); err != nil {
		return nil, fmt.Errorf("reading the header: %w", err)
	}
	f := &File{r: r, data: 8 + int64(n), byName: map[string]int{}}
	if err := f.parse(header); err != nil {
		return nil, err
	}
	return f, f.checkLayout(size - f.data)
}

// readFull reads len(p) bytes at off; a short read is an error.
func readFull(r io.ReaderAt, p []byte, off int64) error {
	n, err := r.ReadAt(p, off)
	if n == len(p) {
		return nil
	}
	if err == nil || errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	return err
}

// parse walks the header token by token, because encoding/json keeps the last of two equal keys
// without a word.
func (f *File) parse(header []byte) error {
	if len(header) == 0 || header[0] != '{' {
		return refuse("the header does not begin with {")
	}
	if !utf8.Valid(header) {
		return refuse("the header is not UTF-8")
	}
	d := json.NewDecoder(bytes.NewReader(header))
	seen := map[string]bool{}
	err := object(d, func(key string) error {
		if seen[key] {
			return refuse("the header has %q twice", key)
		}
		seen[key] = true
		if strings.ContainsRune(key, utf8.RuneError) && !bytes.ContainsRune(header, utf8.RuneError) {
			return refuse("the name %q holds half of a surrogate pair", key)
		}
		if key == metadataKey {
			return f.parseMetadata(d)
		}
		e, err := parseEntry(d, key)
		f.entries = append(f.entries, e)
		return err
	})
	var refusal *FormatError
	if err != nil && !errors.As(err, &refusal) {
		return refuse("the header is not JSON of the expected form: %v", err)
	}
	if err != nil {
		return err
	}
	if rest := strings.TrimRight(string(header[d.InputOffset():]), " \t\r\n"); rest != "" {
		return refuse("%d bytes follow the JSON of the header", len(rest))
	}
	return nil
}

// object reads {"key": value, …}, letting value read each value from d.
func object(d *json.Decoder, value func(key string) error) error {
	if err := delim(d, '{'); err != nil {
		return err
	}
	for d.More() {
		token, err := d.Token()
		if err != nil {
			return err
		}
		key, ok := token.(string)
		if !ok {
			return fmt.Errorf("%v where a key should be", token)
		}
		if err := value(key); err != nil {
			return err
		}
	}
	return delim(d, '}')
}

func delim(d *json.Decoder, want json.Delim) error {
	token, err := d.Token()
	if err == nil && token != want {
		err = fmt.Errorf("%v where %v should be", token, want)
	}
	return err
}

func (f *File) parseMetadata(d *json.Decoder) error {
	f.Metadata = map[string]string{}
	return object(d, func(key string) error {
		if _, twice := f.Metadata[key]; twice {
			return refuse("the metadata has %q twice", key)
		}
		token, err := d.Token()
		if err != nil {
			return err
		}
		text, ok := token.(string)
		if !ok {
			return refuse("the metadata %q is not a string", key)
		}
		f.Metadata[key] = text
		return nil
	})
}

func parseEntry(d *json.Decoder, name string) (entry, error) {
	e := entry{Info: Info{Name: name}}
	fields := map[string]json.RawMessage{}
	err := object(d, func(key string) error {
		if _, twice := fields[key]; twice {
			return refuse("tensor %q has %q twice", name, key)
		}
		var raw json.RawMessage
		err := d.Decode(&raw)
		fields[key] = raw // keys that the format does not know are let be
		return err
	})
	if err != nil {
		return e, err
	}
	if err := json.Unmarshal(fields["dtype"], &e.DType); err != nil {
		return e, refuse("tensor %q has no dtype", name)
	}
	shape, err := integers(fields["shape"])
	if err != nil {
		return e, refuse("tensor %q: shape: %v", name, err)
	}
	e.Shape = make([]int, len(shape))
	for i, n := range shape {
		e.Shape[i] = int(n)
	}
	offsets, err := integers(fields["data_offsets"])
	if err != nil || len(offsets) != 2 {
		return e, refuse("tensor %q: data_offsets is not a pair of offsets", name)
	}
	e.begin, e.end = offsets[0], offsets[1]
	return e, nil
}

// integers reads a JSON list of integers 0 … 2^63−1, written as digits.
func integers(raw json.RawMessage) ([]int64, error) {
	var numbers []json.RawMessage
	if len(raw) == 0 || raw[0] != '[' {
		return nil, errors.New("it is not a list")
	}
	if err := json.Unmarshal(raw, &numbers); err != nil {
		return nil, err
	}
	list := make([]int64, len(numbers))
	for i, number := range numbers {
		n, err := strconv.ParseUint(string(number), 10, 64)
		if err != nil || n > math.MaxInt64 || n > math.MaxInt {
			return nil, fmt.Errorf("%s is not an integer from 0", number)
		}
		list[i] = int64(n)
	}
	return list, nil
}

// checkLayout requires that the arrays, by offset, cover the data section exactly.
func (f *File) checkLayout(size int64) error {
	slices.SortStableFunc(f.entries, func(a, b entry) int {
		return cmp.Or(cmp.Compare(a.begin, b.begin), cmp.Compare(a.end, b.end))
	})
	var end int64
	for i, e := range f.entries {
		bytes, err := e.byteCount()
		if err != nil {
			return refuse("%v", err)
		}
		switch {
		case e.end < e.begin || e.end-e.begin != bytes:
			return refuse("tensor %q: shape %v of %s has %d bytes, data_offsets [%d, %d] do not", e.Name, e.Shape, e.DType, bytes, e.begin, e.end)
		case e.begin > end:
			return refuse("a hole of %d bytes before tensor %q", e.begin-end, e.Name)
		case e.begin < end:
			return refuse("tensor %q overlaps %q", e.Name, f.entries[i-1].Name)
		}
		end = e.end
		f.byName[e.Name] = i
	}
	if end != size {
		return refuse("the arrays have %d bytes, the file has %d for them", end, size)
	}
	return nil
}

// Infos lists the tensors in the order of the file.
func (f *File) Infos() []Info {
	list := make([]Info, len(f.entries))
	for i, e := range f.entries {
		list[i] = e.Info
	}
	return list
}

// Has says whether there is a tensor of that name.
func (f *File) Has(name string) bool {
	_, ok := f.byName[name]
	return ok
}

// Read reads one tensor.
func (f *File) Read(name string) (Tensor, error) {
	i, ok := f.byName[name]
	if !ok {
		return Tensor{}, fmt.Errorf("no tensor is named %q", name)
	}
	e := f.entries[i]
	t := Tensor{e.Name, e.DType, e.Shape, make([]byte, e.end-e.begin)} // checkLayout: within the file
	if err := readFull(f.r, t.Data, f.data+e.begin); err != nil {
		return Tensor{}, fmt.Errorf("reading tensor %q: %w", name, err)
	}
	return t, nil
}

// ReadAll reads every tensor in the order of the file.
func (f *File) ReadAll() ([]Tensor, error) {
	list := make([]Tensor, len(f.entries))
	for i, e := range f.entries {
		var err error
		if list[i], err = f.Read(e.Name); err != nil {
			return nil, err
		}
	}
	return list, nil
}

// Close closes the file that Open opened.
func (f *File) Close() error {
	if f.closer == nil {
		return nil
	}
	return f.closer.Close()
}
