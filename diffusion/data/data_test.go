package data

import (
	"bytes"
	"compress/gzip"
	"encoding/binary"
	"errors"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// idx encodes values as an IDX file.
func idx(values []byte, dims ...int) []byte {
	b := []byte{0, 0, 8, byte(len(dims))}
	for _, d := range dims {
		b = binary.BigEndian.AppendUint32(b, uint32(d))
	}
	return append(b, values...)
}

func gz(t testing.TB, b []byte) []byte {
	t.Helper()
	var out bytes.Buffer
	w := gzip.NewWriter(&out)
	if _, err := w.Write(b); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func ramp(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(i*7 + i/256)
	}
	return b
}

// folderOf writes files, by name, into a new folder.
func folderOf(t testing.TB, files map[string][]byte) string {
	t.Helper()
	dir := t.TempDir()
	for name, b := range files {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, b, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// open opens dir and reads every image, so that it finds whatever is broken.
func open(dir string, shape Shape) (train, heldOut Dataset, err error) {
	train, heldOut, err = Open(Config{Path: dir, Format: "auto"}, shape)
	for _, set := range []Dataset{train, heldOut} {
		for i := 0; err == nil && set != nil && i < set.Len(); i++ {
			_, err = set.At(i, make([]byte, shape.Bytes()))
		}
	}
	return train, heldOut, err
}

// refused requires an *Error of one line that names the file and says why.
func refused(t *testing.T, name string, err error, file, says string) {
	t.Helper()
	var e *Error
	if !errors.As(err, &e) || !strings.Contains(err.Error(), file) || !strings.Contains(err.Error(), says) || strings.Contains(err.Error(), "\n") {
		t.Errorf("%s: %v; want a data.Error that names %q and says %q", name, err, file, says)
	}
}

func TestIDX(t *testing.T) {
	pixels := ramp(3 * 4 * 6)
	for _, zipped := range []bool{false, true} {
		images, labels, suffix := idx(pixels, 3, 4, 6), idx([]byte{2, 0, 1}, 3), ""
		if zipped {
			images, labels, suffix = gz(t, images), gz(t, labels), ".gz"
		}
		dir := folderOf(t, map[string][]byte{
			"train-images-idx3-ubyte" + suffix: images, "train-labels-idx1-ubyte" + suffix: labels,
			"t10k-images-idx3-ubyte": idx(pixels[:24], 1, 4, 6), "t10k-labels-idx1-ubyte": idx([]byte{4}, 1),
		})
		train, test, err := open(dir, Shape{4, 6, 1})
		if err != nil {
			t.Fatal(err)
		}
		if train.Len() != 3 || test.Len() != 1 || train.Classes() != 5 || test.Classes() != 5 {
			t.Errorf("%d and %d images, %d and %d classes", train.Len(), test.Len(), train.Classes(), test.Classes())
		}
		got := make([]byte, 24)
		if label, err := train.At(1, got); err != nil || label != 0 || !bytes.Equal(got, pixels[24:48]) {
			t.Errorf("image 1: label %d, %v", label, err)
		}
	}
}

func TestIDXWithoutLabelsIsSplit(t *testing.T) {
	dir := folderOf(t, map[string][]byte{"train-images-idx3-ubyte": idx(ramp(10*4), 10, 2, 2)})
	train, heldOut, err := Open(Config{Path: dir, Holdout: 3}, Shape{2, 2, 1})
	if err != nil {
		t.Fatal(err)
	}
	if train.Len() != 7 || heldOut.Len() != 3 || train.Classes() != 0 {
		t.Errorf("%d and %d images, %d classes", train.Len(), heldOut.Len(), train.Classes())
	}
	seen := map[string]bool{}
	for _, set := range []Dataset{train, heldOut} {
		for i := range set.Len() {
			b := make([]byte, 4)
			if _, err := set.At(i, b); err != nil {
				t.Fatal(err)
			}
			seen[string(b)] = true
		}
	}
	if len(seen) != 10 {
		t.Errorf("both parts together have %d different images of 10", len(seen))
	}
}

// The first held-out images are a sample of all of them, whatever order the images are in.
func TestSplitSpreads(t *testing.T) {
	train, heldOut := Split(numbered{n: 1000}, 500)
	mean, seen := 0.0, map[int32]bool{}
	for i := range 500 {
		a, errA := train.At(i, make([]byte, 4))
		b, errB := heldOut.At(i, make([]byte, 4))
		if errA != nil || errB != nil {
			t.Fatal(errA, errB)
		}
		seen[a], seen[b] = true, true
		if i < 50 {
			mean += float64(b) / 50
		}
	}
	// The mean of 50 of 1000 has a standard deviation of 41; the permutation is fixed.
	if math.Abs(mean-500) > 150 || len(seen) != 1000 {
		t.Errorf("the first 50 have the mean number %g; %d of 1000 images are in one part", mean, len(seen))
	}
}

func TestIDXRefuses(t *testing.T) {
	good := idx(ramp(3*4*4), 3, 4, 4)
	zipped := gz(t, good)
	flipped := bytes.Clone(zipped)
	flipped[len(flipped)-6] ^= 1 // in the checksum
	bomb := gz(t, append(idx(nil, 3, 4, 4), make([]byte, 64<<20)...))
	for _, c := range []struct {
		name, file string
		bytes      []byte
		says       string
	}{
		{"truncated", "train-images-idx3-ubyte", good[:len(good)-1], "truncated"},
		{"truncated in the header", "train-images-idx3-ubyte", good[:7], "truncated"},
		{"empty", "train-images-idx3-ubyte", nil, "truncated"},
		{"truncated gz", "train-images-idx3-ubyte.gz", zipped[:len(zipped)/2], "truncated"},
		{"gz cut in its header", "train-images-idx3-ubyte.gz", zipped[:5], "truncated"},
		{"gz with a wrong checksum", "train-images-idx3-ubyte.gz", flipped, "checksum"},
		{"gz bomb", "train-images-idx3-ubyte.gz", bomb, "more than 48 bytes"},
		{"bytes after the end", "train-images-idx3-ubyte", append(bytes.Clone(good), 1), "more than 48 bytes"},
		{"labels instead of images", "train-images-idx3-ubyte", idx([]byte{1, 2, 3}, 3), "no IDX file of 3-dimensional"},
		{"floats", "train-images-idx3-ubyte", append([]byte{0, 0, 13, 3}, good[4:]...), "no IDX file"},
		{"text", "train-images-idx3-ubyte", []byte("hello, this is text"), "no IDX file"},
		{"huge sides", "train-images-idx3-ubyte", idx(nil, 1, 1<<20, 1<<20), "beyond what is allowed"},
		{"huge count", "train-images-idx3-ubyte", idx(nil, 1<<32-1, 4096, 4096), "beyond what is allowed"},
		{"a claim of 4 GiB with no bytes", "train-images-idx3-ubyte", idx(nil, 1<<20, 64, 64), "truncated"},
		{"no image", "train-images-idx3-ubyte", idx(nil, 0, 4, 4), "beyond what is allowed"},
		{"labels of another number", "train-labels-idx1-ubyte", idx([]byte{1, 2}, 2), "2 labels for 3 images"},
		{"truncated labels", "train-labels-idx1-ubyte", idx([]byte{1, 2}, 3), "truncated"},
	} {
		files := map[string][]byte{"train-images-idx3-ubyte": good, c.file: c.bytes}
		if strings.HasSuffix(c.file, "images-idx3-ubyte.gz") {
			delete(files, "train-images-idx3-ubyte")
		}
		_, _, err := open(folderOf(t, files), Shape{4, 4, 1})
		refused(t, c.name, err, c.file, c.says)
	}
}

func TestTwoSetsInAFolderAreNamed(t *testing.T) {
	good := idx(ramp(16), 1, 4, 4)
	for name, says := range map[string]string{"emnist-train-images-idx3-ubyte": "keep one set in a folder", "t10k-images-idx3-ubyte": ""} {
		dir := folderOf(t, map[string][]byte{"train-images-idx3-ubyte": good, name: good})
		if _, _, err := open(dir, Shape{4, 4, 1}); says == "" && err != nil {
			t.Error(err)
		} else if says != "" {
			refused(t, name, err, name, says)
		}
	}
	_, _, err := open(folderOf(t, map[string][]byte{"t10k-images-idx3-ubyte": good}), Shape{4, 4, 1})
	refused(t, "a test set alone", err, "", "no file named train-images-idx3-ubyte")
}

func cifarRows(labels ...byte) []byte {
	var b []byte
	for _, label := range labels {
		b = append(b, label)
		b = append(b, bytes.Repeat([]byte{10}, cifarPlane)...)
		b = append(b, bytes.Repeat([]byte{20}, cifarPlane)...)
		b = append(b, ramp(cifarPlane)...)
	}
	return b
}

func TestCIFAR10(t *testing.T) {
	for _, sub := range []string{"", "cifar-10-batches-bin/"} {
		dir := folderOf(t, map[string][]byte{
			sub + "data_batch_1.bin": cifarRows(3, 9), sub + "data_batch_2.bin": cifarRows(0), sub + "test_batch.bin": cifarRows(7),
		})
		shape := Shape{32, 32, 3}
		train, test, err := open(dir, shape)
		if err != nil {
			t.Fatal(err)
		}
		if train.Len() != 3 || test.Len() != 1 || train.Classes() != 10 {
			t.Errorf("%d and %d images, %d classes", train.Len(), test.Len(), train.Classes())
		}
		b := make([]byte, shape.Bytes())
		label, err := train.At(1, b)
		if err != nil || label != 9 || !bytes.Equal(b[3*40:3*41], []byte{10, 20, ramp(41)[40]}) {
			t.Errorf("label %d, pixel 40 is %v, %v", label, b[3*40:3*41], err)
		}
	}
}

func TestCIFAR10Refuses(t *testing.T) {
	shape := Shape{32, 32, 3}
	for _, c := range []struct {
		name  string
		bytes []byte
		says  string
	}{
		{"truncated", cifarRows(1)[:3000], "multiple of 3073"},
		{"empty", nil, "multiple of 3073"},
		{"label 10", cifarRows(1, 10), "image 1 has the label 10"},
	} {
		_, _, err := open(folderOf(t, map[string][]byte{"data_batch_1.bin": c.bytes}), shape)
		refused(t, c.name, err, "data_batch_1.bin", c.says)
		_, _, err = open(folderOf(t, map[string][]byte{"data_batch_1.bin": cifarRows(1), "test_batch.bin": c.bytes}), shape)
		refused(t, c.name+" in the test set", err, "test_batch.bin", c.says)
	}
}

func TestOpenRefuses(t *testing.T) {
	shape := Shape{4, 4, 1}
	images := folderOf(t, map[string][]byte{"train-images-idx3-ubyte": idx(ramp(3*16), 3, 4, 4)})
	odd := folderOf(t, map[string][]byte{"train-images-idx3-ubyte": idx(ramp(25), 1, 5, 5)})
	empty := t.TempDir()
	for _, c := range []struct {
		name string
		Config
		shape      Shape
		file, says string
	}{
		{"no path", Config{}, shape, "data", "no path"},
		{"missing folder", Config{Path: "/nowhere/at/all"}, shape, "/nowhere/at/all", "no such file or folder"},
		{"missing folder of idx", Config{Path: "/nowhere/at/all", Format: "idx"}, shape, "/nowhere/at/all", "no such file or folder"},
		{"missing folder of cifar10", Config{Path: "/nowhere/at/all", Format: "cifar10"}, shape, "/nowhere/at/all", "no such file or folder"},
		{"missing folder of images", Config{Path: "/nowhere/at/all", Format: "folder"}, shape, "/nowhere/at/all", "no such file or folder"},
		{"a file", Config{Path: filepath.Join(images, "train-images-idx3-ubyte")}, shape, "train-images", "must be a folder"},
		{"empty folder", Config{Path: empty}, shape, empty, "no PNG or JPEG"},
		{"empty folder as idx", Config{Path: empty, Format: "idx"}, shape, empty, "train-images-idx3-ubyte"},
		{"empty folder as cifar10", Config{Path: empty, Format: "cifar10"}, shape, empty, "data_batch_1.bin"},
		{"odd image size", Config{Path: odd}, shape, odd, "must be even"},
		{"another image size", Config{Path: images}, Shape{8, 8, 1}, images, "made for 8x8x1"},
		{"holdout of all", Config{Path: images, Holdout: 3}, shape, images, "cannot hold out 3 of 3"},
		{"odd network size", Config{Path: empty}, Shape{5, 5, 3}, empty, "must be even"},
	} {
		_, _, err := Open(c.Config, c.shape)
		refused(t, c.name, err, c.file, c.says)
	}
	if _, _, err := Open(Config{Path: images, Format: "tar"}, shape); err == nil {
		t.Error("unknown format: want an error")
	}
}

func TestDebianFashionMNIST(t *testing.T) {
	train, test, err := Open(Config{Path: "fashion-mnist"}, Shape{28, 28, 1})
	if _, statErr := os.Stat(debianFashionMNIST); statErr != nil {
		refused(t, "not installed", err, debianFashionMNIST, "apt-get install dataset-fashion-mnist")
		return
	}
	if err != nil {
		t.Fatal(err)
	}
	if train.Len() != 60000 || test.Len() != 10000 || train.Classes() != 10 {
		t.Errorf("%d and %d images, %d classes", train.Len(), test.Len(), train.Classes())
	}
}

func FuzzReadIDX(f *testing.F) {
	good := idx(ramp(12), 3, 2, 2)
	f.Add(good)
	f.Add(gz(f, good))
	f.Add(idx(nil, 1<<32-1, 4096, 4096))
	f.Fuzz(func(t *testing.T, b []byte) {
		dims, values, err := readIDX(bytes.NewReader(b), 3)
		if err == nil && len(values) != dims[0]*dims[1]*dims[2] {
			t.Errorf("%v but %d values", dims, len(values))
		}
	})
}

func FuzzCIFAR10(f *testing.F) {
	f.Add(cifarRows(1, 2))
	f.Fuzz(func(t *testing.T, b []byte) {
		m := &memory{shape: Shape{32, 32, 3}}
		if err := m.addCIFAR10(b); err == nil && m.Len() != len(m.labels) {
			t.Errorf("%d images, %d labels", m.Len(), len(m.labels))
		}
	})
}
