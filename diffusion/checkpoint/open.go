package checkpoint

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"ddgpu/diffusion/safetensors"
)

// Checkpoint is a checkpoint whose every byte has been checked against its manifest.
type Checkpoint struct {
	Path     string
	Manifest Manifest
	Config   []byte // config.json
}

// Open reads a checkpoint folder's manifest and verifies all of its files. Every error that is
// the checkpoint's fault is an *Error; one about a damaged file names the file.
func Open(path string) (*Checkpoint, error) {
	c := &Checkpoint{Path: path}
	text, err := c.readSmall(manifestName)
	if err != nil {
		return nil, err
	}
	if c.Manifest, err = parseManifest(text); err != nil {
		return nil, &Error{path, err}
	}
	for _, f := range c.Manifest.Files {
		if err := c.verify(f); err != nil {
			return nil, err
		}
	}
	if c.Config, err = c.readSmall(configName); err != nil {
		return nil, err
	}
	return c, nil
}

// maxStep is far above any training, and its images can still be counted.
const maxStep = 1_000_000_000_000

// parseManifest reads manifest.json and checks what can be checked without the files.
func parseManifest(text []byte) (Manifest, error) {
	var m Manifest
	d := json.NewDecoder(bytes.NewReader(text))
	d.DisallowUnknownFields()
	if err := d.Decode(&m); err != nil {
		return m, fmt.Errorf("%s is not readable: %w", manifestName, err)
	}
	if m.Format != Format {
		return m, fmt.Errorf("it has format %d, this program reads %d", m.Format, Format)
	}
	hash, err := m.computeHash()
	canonical, encodeErr := m.encode() // Save writes it so, to the byte
	if err != nil || encodeErr != nil || hash != m.Hash || !bytes.Equal(canonical, text) {
		return m, fmt.Errorf("%s is damaged: it does not have the hash that it names", manifestName)
	}
	if m.Step < 0 || m.Step > maxStep {
		return m, fmt.Errorf("%s names the impossible step %d", manifestName, m.Step)
	}
	for _, f := range m.Files {
		if f.Name != filepath.Base(f.Name) || f.Name == manifestName {
			return m, fmt.Errorf("%s lists the impossible file name %q", manifestName, f.Name)
		}
	}
	if !m.lists(configName) {
		return m, fmt.Errorf("%s does not list %s", manifestName, configName)
	}
	return m, nil
}

func (m Manifest) lists(name string) bool {
	return slices.ContainsFunc(m.Files, func(f File) bool { return f.Name == name })
}

// verify compares one file's size and SHA-256 with the manifest's.
func (c *Checkpoint) verify(f File) error {
	file, err := os.Open(filepath.Join(c.Path, f.Name))
	if errors.Is(err, fs.ErrNotExist) {
		return bad(c.Path, "%s is missing", f.Name)
	}
	if err != nil {
		return &Error{c.Path, err}
	}
	defer file.Close()
	sum := sha256.New()
	n, err := io.Copy(sum, file)
	if err != nil {
		return bad(c.Path, "reading %s: %w", f.Name, err)
	}
	if n != f.Bytes {
		return bad(c.Path, "%s is damaged: it has %d bytes, it was written with %d", f.Name, n, f.Bytes)
	}
	if hex.EncodeToString(sum.Sum(nil)) != f.SHA256 {
		return bad(c.Path, "%s is damaged: its bytes are not those that were written (SHA-256 differs)", f.Name)
	}
	return nil
}

func (c *Checkpoint) readSmall(name string) ([]byte, error) {
	f, err := os.Open(filepath.Join(c.Path, name))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, bad(c.Path, "there is no %s: it is not a checkpoint", name)
	}
	if err != nil {
		return nil, &Error{c.Path, err}
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxJSON+1))
	if err != nil {
		return nil, bad(c.Path, "reading %s: %w", name, err)
	}
	if len(b) > maxJSON {
		return nil, bad(c.Path, "%s has more than %d bytes", name, maxJSON)
	}
	return b, nil
}

// Set opens a set of tensors. The caller closes it.
func (c *Checkpoint) Set(name string) (*safetensors.File, error) {
	if !c.Manifest.lists(name + extension) {
		return nil, bad(c.Path, "it has no %s", name+extension)
	}
	f, err := safetensors.Open(filepath.Join(c.Path, name+extension))
	if err != nil {
		return nil, &Error{c.Path, err}
	}
	return f, nil
}

// Match requires that have are exactly the tensors want, and otherwise names the first, in
// want's order, that differs.
func Match(have, want []safetensors.Info) error {
	byName := map[string]safetensors.Info{}
	for _, h := range have {
		byName[h.Name] = h
	}
	for _, w := range want {
		h, ok := byName[w.Name]
		if !ok {
			return fmt.Errorf("it is of another network: tensor %q is missing", w.Name)
		}
		if !slices.Equal(h.Shape, w.Shape) || h.DType != w.DType {
			return fmt.Errorf("it is of another network: tensor %q is %s %s, the network needs %s %s",
				w.Name, h.DType, shape(h.Shape), w.DType, shape(w.Shape))
		}
		delete(byName, w.Name)
	}
	for _, h := range have {
		if _, left := byName[h.Name]; left {
			return fmt.Errorf("it is of another network, which has a tensor %q", h.Name)
		}
	}
	return nil
}

func shape(dims []int) string {
	return "[" + strings.Trim(strings.ReplaceAll(fmt.Sprint(dims), " ", ", "), "[]") + "]"
}
