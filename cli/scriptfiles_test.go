package main

import (
	"bytes"
	"encoding/binary"
	"hash/crc32"
	"image"
	"image/png"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"

	"github.com/rogpeppe/go-internal/testscript"
)

func scriptPictures(ts *testscript.TestScript, _ bool, args []string) {
	dir := ts.MkAbs(args[0])
	count, err := strconv.Atoi(args[1])
	ts.Check(err)
	size, err := strconv.Atoi(args[2])
	ts.Check(err)
	ts.Check(os.MkdirAll(dir, 0o755))
	for i := range count {
		grey := image.NewGray(image.Rect(0, 0, size, size))
		for p := range grey.Pix {
			grey.Pix[p] = byte(rand.Uint32())
		}
		var b bytes.Buffer
		ts.Check(png.Encode(&b, grey))
		ts.Check(os.WriteFile(filepath.Join(dir, strconv.Itoa(i)+".png"), b.Bytes(), 0o644))
	}
}

func scriptFlip(ts *testscript.TestScript, _ bool, args []string) {
	path := ts.MkAbs(args[0])
	b, err := os.ReadFile(path)
	ts.Check(err)
	b[len(b)/2] ^= 1
	ts.Check(os.WriteFile(path, b, 0o644))
}

func scriptCut(ts *testscript.TestScript, _ bool, args []string) {
	n, err := strconv.ParseInt(args[1], 10, 64)
	ts.Check(err)
	ts.Check(os.Truncate(ts.MkAbs(args[0]), n))
}

// scriptBomb writes a valid small PNG with another size in its header.
func scriptBomb(ts *testscript.TestScript, _ bool, args []string) {
	var b bytes.Buffer
	ts.Check(png.Encode(&b, image.NewGray(image.Rect(0, 0, 8, 8))))
	header := b.Bytes()[12:29] // IHDR and its 13 bytes, which their CRC follows
	binary.BigEndian.PutUint32(header[4:], 60_000)
	binary.BigEndian.PutUint32(header[8:], 60_000)
	binary.BigEndian.PutUint32(b.Bytes()[29:], crc32.ChecksumIEEE(header))
	ts.Check(os.WriteFile(ts.MkAbs(args[0]), b.Bytes(), 0o644))
}

// scriptFakeCUDA makes every entry point of the driver return CUDA_ERROR_NO_DEVICE, as NVIDIA's library does on a machine without a GPU.
func scriptFakeCUDA(ts *testscript.TestScript, _ bool, args []string) {
	list, err := os.ReadFile(filepath.Join(ts.Getenv("REPO"), "gpu/driver/cuda_entries.h"))
	ts.Check(err)
	var source strings.Builder
	for _, entry := range regexp.MustCompile(`CU_[A-Z]+\((cu\w+)`).FindAllSubmatch(list, -1) {
		source.WriteString("int " + string(entry[1]) + "(void) { return 100; }\n")
	}
	dir := ts.MkAbs(args[0])
	ts.Check(os.MkdirAll(dir, 0o755))
	file := filepath.Join(dir, "fake.c")
	ts.Check(os.WriteFile(file, []byte(source.String()), 0o644))
	compiler := os.Getenv("CC")
	if compiler == "" {
		compiler = "cc"
	}
	out, err := exec.Command(compiler, "-shared", "-fPIC", "-fno-builtin", "-o", filepath.Join(dir, "libcuda.so.1"), file).CombinedOutput()
	if err != nil {
		ts.Fatalf("compiling a library: %v: %s", err, out)
	}
}

func scriptRandom(ts *testscript.TestScript, _ bool, args []string) {
	var shape []int
	n := 1
	for _, word := range args[1:] {
		dim, err := strconv.Atoi(word)
		ts.Check(err)
		shape = append(shape, dim)
		n *= dim
	}
	values := make([]float32, n)
	for i := range values {
		values[i] = rand.Float32()
	}
	ts.Check(writeNPY(ts.MkAbs(args[0]), float32Array(shape, values)))
}

func scriptLabels(ts *testscript.TestScript, _ bool, args []string) {
	var labels []int32
	for _, word := range args[1:] {
		k, err := strconv.Atoi(word)
		ts.Check(err)
		labels = append(labels, int32(k))
	}
	ts.Check(writeNPY(ts.MkAbs(args[0]), int32Array(labels)))
}
