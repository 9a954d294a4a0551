package data

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"image"
	_ "image/jpeg" // the formats that image.Decode knows
	_ "image/png"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"

	"golang.org/x/image/draw"
)

// Bounds on one image file. A PNG of a few kilobytes can claim gigapixels, so the size in its
// header is read and checked before anything is decoded.
const (
	maxImageFile   = 256 << 20 // bytes
	maxImagePixels = 1 << 26   // 67 megapixels
	maxScans       = 100       // of a JPEG: each passes over the whole image, however few bytes it has
	maxDepth       = 8         // folders below the one that is opened
	maxCache       = 1 << 30   // bytes of decoded images that are kept
)

// folder is a Dataset of PNG and JPEG files.
type folder struct {
	shape   Shape
	classes []string
	files   []string
	labels  []int32
	cache   []atomic.Pointer[[]byte] // decoded images; empty if all would pass maxCache
}

// openFolder lists the images below dir in order of path and checks the header of each.
func openFolder(dir string, shape Shape) (Dataset, error) {
	if shape.C != 1 && shape.C != 3 {
		return nil, bad(dir, "images have 1 or 3 channels, not %d", shape.C)
	}
	f := &folder{shape: shape}
	entries, err := list(dir)
	if err != nil {
		return nil, err
	}
	inRoot := 0
	for _, e := range entries {
		if !e.isDir {
			f.files = append(f.files, e.path)
			f.labels = append(f.labels, 0)
			inRoot++
			continue
		}
		before := len(f.files)
		if err := f.walk(e.path, int32(len(f.classes)), 1); err != nil {
			return nil, err
		}
		if len(f.files) > before {
			f.classes = append(f.classes, filepath.Base(e.path))
		}
	}
	switch {
	case len(f.files) == 0:
		return nil, bad(dir, "there is no PNG or JPEG file in it")
	case inRoot > 0 && len(f.classes) > 0:
		return nil, bad(dir, "%d images lie beside the folders of the classes: put each into one", inRoot)
	}
	for _, path := range f.files {
		if err := checkImageFile(path); err != nil {
			return nil, err
		}
	}
	if len(f.files)*shape.Bytes() <= maxCache {
		f.cache = make([]atomic.Pointer[[]byte], len(f.files))
	}
	return f, nil
}

type dirEntry struct {
	path  string
	isDir bool
}

// list gives the folders and image files of dir by name, following links and passing over names
// that begin with a dot.
func list(dir string) ([]dirEntry, error) {
	names, err := os.ReadDir(dir)
	if err != nil {
		return nil, wrap(dir, err)
	}
	var entries []dirEntry
	for _, name := range names {
		path := filepath.Join(dir, name.Name())
		if strings.HasPrefix(name.Name(), ".") {
			continue
		}
		stat, err := os.Stat(path)
		if err != nil {
			return nil, wrap(path, err)
		}
		ext := strings.ToLower(filepath.Ext(path))
		if stat.IsDir() || ext == ".png" || ext == ".jpg" || ext == ".jpeg" {
			entries = append(entries, dirEntry{path, stat.IsDir()})
		}
	}
	slices.SortFunc(entries, func(a, b dirEntry) int { return strings.Compare(a.path, b.path) })
	return entries, nil
}

func (f *folder) walk(dir string, label int32, depth int) error {
	if depth > maxDepth {
		return bad(dir, "it lies more than %d folders deep", maxDepth)
	}
	entries, err := list(dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if e.isDir {
			if err := f.walk(e.path, label, depth+1); err != nil {
				return err
			}
			continue
		}
		f.files = append(f.files, e.path)
		f.labels = append(f.labels, label)
	}
	return nil
}

func (f *folder) Len() int     { return len(f.files) }
func (f *folder) Shape() Shape { return f.shape }
func (f *folder) Classes() int { return len(f.classes) }

func (f *folder) At(i int, dst []byte) (int32, error) {
	dst = dst[:f.shape.Bytes()]
	if f.cache != nil {
		if pixels := f.cache[i].Load(); pixels != nil {
			copy(dst, *pixels)
			return f.labels[i], nil
		}
	}
	encoded, err := readImageFile(f.files[i])
	if err == nil {
		err = decode(encoded, f.shape, dst)
	}
	if err != nil {
		return 0, wrap(f.files[i], err)
	}
	if f.cache != nil {
		pixels := slices.Clone(dst)
		f.cache[i].Store(&pixels)
	}
	return f.labels[i], nil
}

// checkImageFile reads as much of a file as its header takes.
func checkImageFile(path string) error {
	file, err := os.Open(path)
	if err != nil {
		return wrap(path, err)
	}
	defer file.Close()
	return wrap(path, checkHeader(file))
}

func checkHeader(r io.Reader) error {
	c, _, err := image.DecodeConfig(r)
	if err == image.ErrFormat {
		return fmt.Errorf("it is neither PNG nor JPEG, whatever its name says")
	}
	if err != nil {
		return unexpected(err)
	}
	if c.Width < 1 || c.Height < 1 || int64(c.Width)*int64(c.Height) > maxImagePixels {
		return fmt.Errorf("the image is %d x %d pixels, at most %d million are allowed", c.Width, c.Height, maxImagePixels/1_000_000)
	}
	return nil
}

// scans counts the scans of a JPEG (ITU-T T.81, annex B) as image/jpeg finds them; a PNG has none.
func scans(encoded []byte) (n int) {
	if !bytes.HasPrefix(encoded, []byte{0xff, 0xd8}) {
		return 0
	}
	for at := 2; at+3 < len(encoded); {
		marker := encoded[at+1]
		switch {
		case encoded[at] != 0xff || marker == 0xff: // entropy-coded data, or a fill byte
			at++
		case marker == 0 || marker >= 0xd0 && marker <= 0xd7: // an escaped 0xff, or a restart
			at += 2
		case marker == 0xd9: // the end of the image
			return n
		default:
			if marker == 0xda {
				n++
			}
			at += 2 + int(binary.BigEndian.Uint16(encoded[at+2:]))
		}
	}
	return n
}

func readImageFile(path string) ([]byte, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	return readAtMost(file, maxImageFile)
}

// decode writes a PNG or JPEG to dst (H, W, C): the largest centred part of the same aspect,
// resized with Catmull-Rom (bicubic) interpolation, transparent parts over white. Grey is the
// luma of ITU-R 601. An orientation in EXIF is not applied.
func decode(encoded []byte, shape Shape, dst []byte) error {
	if err := checkHeader(bytes.NewReader(encoded)); err != nil {
		return err
	}
	if n := scans(encoded); n > maxScans {
		return fmt.Errorf("the JPEG has %d scans, at most %d are allowed", n, maxScans)
	}
	picture, _, err := image.Decode(bytes.NewReader(encoded))
	if err != nil {
		return unexpected(err)
	}
	from := centre(picture.Bounds(), shape)
	to := image.Rect(0, 0, shape.W, shape.H)
	canvas := image.NewRGBA(to)
	draw.Draw(canvas, to, image.White, image.Point{}, draw.Src)
	if from.Size() == to.Size() {
		draw.Draw(canvas, to, picture, from.Min, draw.Over)
	} else {
		draw.CatmullRom.Scale(canvas, to, picture, from, draw.Over, nil)
	}
	for p := range shape.H * shape.W {
		r, g, b := canvas.Pix[4*p], canvas.Pix[4*p+1], canvas.Pix[4*p+2]
		if shape.C == 3 {
			dst[3*p], dst[3*p+1], dst[3*p+2] = r, g, b
			continue
		}
		// The weights of image/color.GrayModel, which keep r = g = b as it is.
		dst[p] = byte((19595*uint32(r) + 38470*uint32(g) + 7471*uint32(b) + 1<<15) >> 16)
	}
	return nil
}

// centre is the largest centred rectangle of r with the aspect of shape.
func centre(r image.Rectangle, shape Shape) image.Rectangle {
	w, h := r.Dx(), r.Dy()
	if w*shape.H > h*shape.W {
		w = max(1, h*shape.W/shape.H)
	} else {
		h = max(1, w*shape.H/shape.W)
	}
	corner := r.Min.Add(image.Pt((r.Dx()-w)/2, (r.Dy()-h)/2))
	return image.Rectangle{corner, corner.Add(image.Pt(w, h))}
}
