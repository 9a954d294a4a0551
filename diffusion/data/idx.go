package data

import (
	"bufio"
	"compress/gzip"
	"encoding/binary"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// Bounds on what an IDX file may claim: far above any published set.
const (
	maxIDXSide  = 4096     // pixels
	maxIDXBytes = 16 << 30 // of all images
)

// idxFiles names the files of one set. Labels is empty where there is none.
type idxFiles struct{ images, labels string }

// idxImages is how a file of images is named, in small letters.
const idxImages = "*images*idx3-ubyte*"

// findIDX finds the files of the training set and, if there is one, the test set.
func findIDX(dir string) (train, test *idxFiles, err error) {
	for _, images := range glob(dir, idxImages) {
		files := &idxFiles{images: images}
		base := filepath.Base(images)
		labels := strings.NewReplacer("images", "labels", "idx3", "idx1").Replace(strings.TrimSuffix(base, ".gz"))
		for _, name := range []string{labels, labels + ".gz"} {
			if _, err := os.Stat(filepath.Join(dir, name)); err == nil {
				files.labels = filepath.Join(dir, name)
				break
			}
		}
		which := &train
		if lower := strings.ToLower(base); strings.Contains(lower, "t10k") || strings.Contains(lower, "test") {
			which = &test
		}
		if *which != nil {
			if strings.TrimSuffix((*which).images, ".gz") == strings.TrimSuffix(images, ".gz") {
				continue // the same set, gz and not
			}
			return nil, nil, bad(dir, "%s and %s: keep one set in a folder", filepath.Base((*which).images), base)
		}
		*which = files
	}
	if train == nil {
		return nil, nil, bad(dir, "there is no file named train-images-idx3-ubyte or train-images-idx3-ubyte.gz")
	}
	return train, test, nil
}

func openIDX(dir string) (train, test Dataset, err error) {
	if _, err := os.Stat(dir); err != nil {
		return nil, nil, wrap(dir, err)
	}
	trainFiles, testFiles, err := findIDX(dir)
	if err != nil {
		return nil, nil, err
	}
	a, err := readIDXSet(trainFiles)
	if err != nil {
		return nil, nil, err
	}
	if testFiles == nil {
		return a, nil, nil
	}
	b, err := readIDXSet(testFiles)
	if err != nil {
		return nil, nil, err
	}
	a.classes = max(a.classes, b.classes)
	b.classes = a.classes
	return a, b, nil
}

func readIDXSet(files *idxFiles) (*memory, error) {
	dims, pixels, err := readIDXFile(files.images, 3)
	if err != nil {
		return nil, err
	}
	m := &memory{shape: Shape{dims[1], dims[2], 1}, pixels: pixels}
	if files.labels == "" {
		return m, nil
	}
	if dims, m.labels, err = readIDXFile(files.labels, 1); err != nil {
		return nil, err
	}
	if dims[0] != m.Len() {
		return nil, bad(files.labels, "%d labels for %d images", dims[0], m.Len())
	}
	m.classes = int(slices.Max(m.labels)) + 1
	return m, nil
}

func readIDXFile(path string, rank int) (dims []int, values []byte, err error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, nil, wrap(path, err)
	}
	defer f.Close()
	dims, values, err = readIDX(f, rank)
	return dims, values, wrap(path, err)
}

// readIDX reads an array of unsigned bytes in the IDX format of MNIST, gz or not:
//
//	0, 0, 8 (unsigned byte), rank; the sizes as big-endian u32; the values
func readIDX(r io.Reader, rank int) (dims []int, values []byte, err error) {
	in := bufio.NewReaderSize(r, 1<<16)
	if magic, _ := in.Peek(2); len(magic) == 2 && magic[0] == 0x1f && magic[1] == 0x8b {
		unzipped, err := gzip.NewReader(in)
		if err != nil {
			return nil, nil, err
		}
		in = bufio.NewReaderSize(unzipped, 1<<16)
	}
	header := make([]byte, 4+4*rank)
	if _, err := io.ReadFull(in, header[:4]); err != nil {
		return nil, nil, unexpected(err)
	}
	if header[0] != 0 || header[1] != 0 || header[2] != 8 || int(header[3]) != rank {
		return nil, nil, fmt.Errorf("the first bytes are %x, not %x: it is no IDX file of %d-dimensional bytes", header[:4], []byte{0, 0, 8, byte(rank)}, rank)
	}
	if _, err := io.ReadFull(in, header[4:]); err != nil {
		return nil, nil, unexpected(err)
	}
	total := int64(1)
	for i := range rank {
		n := int64(binary.BigEndian.Uint32(header[4+4*i:]))
		if n == 0 || (i > 0 && n > maxIDXSide) || total*n > maxIDXBytes { // total ≤ 2^34, n < 2^32: no overflow
			return nil, nil, fmt.Errorf("the header claims sizes beyond what is allowed: size %d is %d", i, n)
		}
		total *= n
		dims = append(dims, int(n))
	}
	if values, err = readAtMost(in, total); err != nil {
		return nil, nil, err
	}
	if int64(len(values)) < total {
		return nil, nil, io.ErrUnexpectedEOF
	}
	return dims, values, nil
}

// unexpected turns the end of the file into an unexpected one.
func unexpected(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}
