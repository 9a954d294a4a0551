package safetensors

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"unicode/utf8"
)

// Write writes the tensors, by descending element size and then name, so that each array is
// aligned. The same tensors and metadata give the same bytes in whatever order they come.
func Write(w io.Writer, tensors []Tensor, metadata map[string]string) error {
	sorted := slices.Clone(tensors)
	slices.SortFunc(sorted, func(a, b Tensor) int {
		return cmp.Or(cmp.Compare(b.DType.Size(), a.DType.Size()), cmp.Compare(a.Name, b.Name))
	})
	header, err := header(sorted, metadata)
	if err != nil {
		return fmt.Errorf("writing safetensors: %w", err)
	}
	if _, err := w.Write(le.AppendUint64(nil, uint64(len(header)))); err != nil {
		return fmt.Errorf("writing safetensors: %w", err)
	}
	if _, err := w.Write(header); err != nil {
		return fmt.Errorf("writing safetensors: %w", err)
	}
	for _, t := range sorted {
		if _, err := w.Write(t.Data); err != nil {
			return fmt.Errorf("writing tensor %q: %w", t.Name, err)
		}
	}
	return nil
}

// header is the JSON of sorted, padded with spaces to a multiple of 8 bytes.
func header(sorted []Tensor, metadata map[string]string) ([]byte, error) {
	var b bytes.Buffer
	encoder := json.NewEncoder(&b)
	encoder.SetEscapeHTML(false)
	write := func(v any) error {
		err := encoder.Encode(v)
		b.Truncate(max(0, b.Len()-1)) // the encoder's newline
		return err
	}
	b.WriteByte('{')
	if metadata != nil {
		for k, v := range metadata {
			if !utf8.ValidString(k) || !utf8.ValidString(v) {
				return nil, fmt.Errorf("the metadata %q is not UTF-8", k)
			}
		}
		b.WriteString(`"` + metadataKey + `":`)
		if err := write(metadata); err != nil {
			return nil, err
		}
	}
	seen := map[string]bool{metadataKey: true}
	var offset int64
	for _, t := range sorted {
		if seen[t.Name] || !utf8.ValidString(t.Name) {
			return nil, fmt.Errorf("the name %q is taken or not UTF-8", t.Name)
		}
		seen[t.Name] = true
		n, err := t.Info().byteCount()
		if err != nil {
			return nil, err
		}
		if n != int64(len(t.Data)) {
			return nil, fmt.Errorf("tensor %q: shape %v of %s needs %d bytes, it has %d", t.Name, t.Shape, t.DType, n, len(t.Data))
		}
		if b.Len() > 1 {
			b.WriteByte(',')
		}
		if err := write(t.Name); err != nil {
			return nil, err
		}
		b.WriteByte(':')
		shape := t.Shape
		if shape == nil {
			shape = []int{} // a scalar is [], not null
		}
		if err := write(struct {
			DType   DType    `json:"dtype"`
			Shape   []int    `json:"shape"`
			Offsets [2]int64 `json:"data_offsets"`
		}{t.DType, shape, [2]int64{offset, offset + n}}); err != nil {
			return nil, err
		}
		offset += n
	}
	b.WriteByte('}')
	for b.Len()%8 != 0 {
		b.WriteByte(' ')
	}
	if b.Len() > maxHeader {
		return nil, fmt.Errorf("the header has %d bytes, at most %d are allowed", b.Len(), maxHeader)
	}
	return b.Bytes(), nil
}
