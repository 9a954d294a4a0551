// Package data reads training images from files and serves them in batches.
//
// Open finds the format of a path and gives two Datasets, one to train on and one held out. An
// Order says which image is at which position of the endless stream of epochs, as a function of
// the seed alone, and a Loader reads batches of that stream ahead of their use.
//
// Files are outside bytes: every size in them is bounded before memory is taken for it, and what
// is wrong with one is an *Error that names it.
package data

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// Shape of an image in pixels, with C = 1 (grey) or 3 (red, green, blue).
type Shape struct{ H, W, C int }

// Bytes is H·W·C.
func (s Shape) Bytes() int { return s.H * s.W * s.C }

func (s Shape) String() string { return fmt.Sprintf("%dx%dx%d", s.H, s.W, s.C) }

// Dataset is a numbered set of images of one shape. Its methods may be called from any goroutine.
type Dataset interface {
	Len() int
	Shape() Shape
	// Classes is the number of classes, 0 if the images have none.
	Classes() int
	// At writes image i to dst, Shape().Bytes() bytes as rows of pixels (H, W, C), and returns
	// its class, 0 … Classes()−1.
	At(i int, dst []byte) (label int32, err error)
}

// Error is a file or folder that cannot be used as training data.
type Error struct {
	Path string
	Err  error
}

func (e *Error) Error() string { return e.Path + ": " + e.Err.Error() }

// Unwrap gives the reason.
func (e *Error) Unwrap() error { return e.Err }

func bad(path, format string, args ...any) error {
	return &Error{path, fmt.Errorf(format, args...)}
}

// wrap makes the error of reading path an *Error in words that do not repeat the path.
func wrap(path string, err error) error {
	var known *Error
	if err == nil || errors.As(err, &known) {
		return err
	}
	var pathError *fs.PathError
	switch {
	case errors.Is(err, fs.ErrNotExist):
		if here, err := os.Getwd(); err == nil && !filepath.IsAbs(path) {
			return bad(path, "there is no such file or folder in %s", here)
		}
		return bad(path, "there is no such file or folder")
	case errors.Is(err, io.ErrUnexpectedEOF):
		return bad(path, "the file ends too early: it is truncated")
	case errors.As(err, &pathError):
		return &Error{path, pathError.Err}
	}
	return &Error{path, err}
}

// debianFashionMNIST is where Debian's package dataset-fashion-mnist puts its files.
const debianFashionMNIST = "/usr/share/datasets/fashion-mnist"

// Open opens c.Path as images of the given shape and splits off the held-out set, which is nil
// if c.Holdout is 0 and the format brings none.
//
//	idx      a folder with train-images-idx3-ubyte[.gz] and so on, as MNIST comes
//	cifar10  the folder of CIFAR-10's binary version
//	folder   PNG and JPEG files, the class being the name of the folder directly below c.Path;
//	         resized and centre-cropped to the shape
//
// The path fashion-mnist means the files of Debian's package dataset-fashion-mnist.
func Open(c Config, shape Shape) (train, heldOut Dataset, err error) {
	path := c.Path
	if path == "" {
		return nil, nil, bad("data", "no path is set")
	}
	if path == "fashion-mnist" {
		path = debianFashionMNIST
		if _, err := os.Stat(path); err != nil {
			return nil, nil, bad(path, "fashion-mnist is not installed: apt-get install dataset-fashion-mnist")
		}
	}
	format := c.Format
	if format == "auto" || format == "" {
		if format, err = detect(path); err != nil {
			return nil, nil, err
		}
	}
	switch format {
	case "idx":
		train, heldOut, err = openIDX(path)
	case "cifar10":
		train, heldOut, err = openCIFAR10(path)
	case "folder":
		if shape.H%2 != 0 || shape.W%2 != 0 || shape.H <= 0 || shape.W <= 0 {
			return nil, nil, bad(path, "cannot resize the images to %dx%d: height and width must be even", shape.H, shape.W)
		}
		train, err = openFolder(path, shape)
	default:
		err = fmt.Errorf("unknown data format %q, it must be auto, idx, cifar10 or folder", format)
	}
	if err != nil {
		return nil, nil, err
	}
	for _, set := range []Dataset{train, heldOut} {
		if set == nil || set.Shape() == shape {
			continue
		}
		got := set.Shape()
		if got.H%2 != 0 || got.W%2 != 0 {
			return nil, nil, bad(path, "the images are %s: height and width must be even (the network needs %s)", got, shape)
		}
		return nil, nil, bad(path, "the images are %s, but the network is made for %s", got, shape)
	}
	if heldOut == nil && c.Holdout > 0 {
		if c.Holdout >= train.Len() {
			return nil, nil, bad(path, "cannot hold out %d of %d images: set data.holdout lower", c.Holdout, train.Len())
		}
		train, heldOut = Split(train, c.Holdout)
	}
	return train, heldOut, nil
}

// detect finds the format of a path by the names in it.
func detect(path string) (string, error) {
	stat, err := os.Stat(path)
	if err != nil {
		return "", wrap(path, err)
	}
	if !stat.IsDir() {
		return "", bad(path, "it is a file; the data must be a folder")
	}
	if len(glob(path, idxImages)) > 0 {
		return "idx", nil
	}
	if train, _, _ := findCIFAR10(path); train != nil {
		return "cifar10", nil
	}
	return "folder", nil
}

// readAtMost reads r to its end into memory that grows with what arrives, never with what a
// header promises, and refuses more than limit bytes.
func readAtMost(r io.Reader, limit int64) ([]byte, error) {
	b, err := io.ReadAll(io.LimitReader(r, limit+1))
	if err != nil {
		return nil, err
	}
	if int64(len(b)) > limit {
		return nil, fmt.Errorf("more than %d bytes where %d are expected", limit, limit)
	}
	return b, nil
}

// memory is a Dataset that lies in memory.
type memory struct {
	shape   Shape
	classes int
	pixels  []byte
	labels  []byte // nil without classes
}

func (m *memory) Len() int     { return len(m.pixels) / m.shape.Bytes() }
func (m *memory) Shape() Shape { return m.shape }
func (m *memory) Classes() int { return m.classes }

func (m *memory) At(i int, dst []byte) (int32, error) {
	n := m.shape.Bytes()
	copy(dst[:n], m.pixels[i*n:])
	if m.labels == nil {
		return 0, nil
	}
	return int32(m.labels[i]), nil
}

// subset is some of another dataset's images.
type subset struct {
	Dataset
	indices []int32
}

func (s *subset) Len() int { return len(s.indices) }

func (s *subset) At(i int, dst []byte) (int32, error) { return s.Dataset.At(int(s.indices[i]), dst) }

// splitKey keys the choice of the held-out images. It is not the run's seed, so that runs with
// different seeds can be compared.
const splitKey = 0x5eed_0f_5911

// Split holds count images out, spread over d by a fixed permutation; in its order, so that the first held-out images are a sample of all.
func Split(d Dataset, count int) (train, heldOut Dataset) {
	order := permutation(splitKey, 0, d.Len())
	held := order[:count]
	rest := slices.Sorted(slices.Values(order[count:]))
	return &subset{d, rest}, &subset{d, held}
}

// glob lists the files of dir, not of its folders, that match a pattern, in order of name.
func glob(dir, pattern string) []string {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil
	}
	var found []string
	for _, e := range entries {
		if ok, _ := filepath.Match(pattern, strings.ToLower(e.Name())); ok && !e.IsDir() {
			found = append(found, filepath.Join(dir, e.Name()))
		}
	}
	return found
}
