package data

import (
	"bytes"
	"encoding/binary"
	"hash/crc32"
	"image"
	"image/color"
	"image/jpeg"
	"image/png"
	"testing"
)

func encodePNG(t testing.TB, m image.Image) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := png.Encode(&b, m); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func uniform(w, h int, c color.Color) image.Image {
	m := image.NewNRGBA(image.Rect(0, 0, w, h))
	for y := range h {
		for x := range w {
			m.Set(x, y, c)
		}
	}
	return m
}

// withSize changes the size in a PNG's header, as a decompression bomb does.
func withSize(b []byte, w, h uint32) []byte {
	b = bytes.Clone(b)
	binary.BigEndian.PutUint32(b[16:], w)
	binary.BigEndian.PutUint32(b[20:], h)
	binary.BigEndian.PutUint32(b[29:], crc32.ChecksumIEEE(b[12:29]))
	return b
}

func TestFolderOfClasses(t *testing.T) {
	red, blue := color.NRGBA{200, 0, 0, 255}, color.NRGBA{0, 0, 100, 255}
	var jpg bytes.Buffer
	if err := jpeg.Encode(&jpg, uniform(9, 7, blue), &jpeg.Options{Quality: 100}); err != nil {
		t.Fatal(err)
	}
	dir := folderOf(t, map[string][]byte{
		"shoe/b.PNG": encodePNG(t, uniform(5, 5, red)), "shoe/deep/er/c.png": encodePNG(t, uniform(4, 4, red)),
		"bag/a.jpeg": jpg.Bytes(), "bag/notes.txt": []byte("not an image"), ".hidden/x.png": []byte("broken"),
		"empty/readme.md": nil,
	})
	shape := Shape{4, 4, 3}
	train, heldOut, err := open(dir, shape)
	if err != nil {
		t.Fatal(err)
	}
	if heldOut != nil || train.Len() != 3 || train.Classes() != 2 {
		t.Fatalf("%d images, %d classes", train.Len(), train.Classes())
	}
	for i, want := range []struct {
		label int32
		pixel []byte
	}{{0, []byte{0, 0, 100}}, {1, []byte{200, 0, 0}}, {1, []byte{200, 0, 0}}} {
		for range 2 { // decoded, then from the cache
			b := make([]byte, shape.Bytes())
			label, err := train.At(i, b)
			if err != nil || label != want.label {
				t.Errorf("image %d: label %d, %v", i, label, err)
			}
			for k, v := range b {
				if d := int(v) - int(want.pixel[k%3]); d < -3 || d > 3 {
					t.Fatalf("image %d: %v, want pixels of %v", i, b, want.pixel)
				}
			}
		}
	}
}

func TestDecode(t *testing.T) {
	// 8×4, left half black, right half white: the centred square keeps two columns of each half.
	halves := image.NewGray(image.Rect(0, 0, 8, 4))
	for y := range 4 {
		for x := 4; x < 8; x++ {
			halves.SetGray(x, y, color.Gray{255})
		}
	}
	grey := Shape{4, 4, 1}
	got := make([]byte, 16)
	if err := decode(encodePNG(t, halves), grey, got); err != nil {
		t.Fatal(err)
	}
	if want := bytes.Repeat([]byte{0, 0, 255, 255}, 4); !bytes.Equal(got, want) {
		t.Errorf("centre crop: %v, want %v", got, want)
	}
	// Halving a uniform image keeps its value, whatever the filter.
	if err := decode(encodePNG(t, uniform(16, 9, color.Gray{77})), grey, got); err != nil {
		t.Fatal(err)
	}
	if want := bytes.Repeat([]byte{77}, 16); !bytes.Equal(got, want) {
		t.Errorf("resize: %v", got)
	}
	// ITU-R 601 luma of pure green is 0.587·255.
	if err := decode(encodePNG(t, uniform(4, 4, color.NRGBA{0, 255, 0, 255})), grey, got); err != nil || got[5] != 150 {
		t.Errorf("grey of green: %d, %v", got[5], err)
	}
	// Transparent parts lie over white.
	if err := decode(encodePNG(t, uniform(4, 4, color.NRGBA{0, 0, 0, 0})), grey, got); err != nil || got[0] != 255 {
		t.Errorf("transparent: %d, %v", got[0], err)
	}
	// 16 bits a channel.
	deep := image.NewGray16(image.Rect(0, 0, 4, 4))
	for i := range deep.Pix {
		deep.Pix[i] = 0x80
	}
	if err := decode(encodePNG(t, deep), grey, got); err != nil || got[0] != 0x80 {
		t.Errorf("16 bit: %d, %v", got[0], err)
	}
	// A tall sliver still has a crop of at least one pixel.
	if err := decode(encodePNG(t, uniform(1, 300, color.Gray{9})), Shape{4, 2, 1}, got); err != nil || got[0] != 9 {
		t.Errorf("sliver: %d, %v", got[0], err)
	}
}

func TestFolderRefuses(t *testing.T) {
	good := encodePNG(t, uniform(4, 4, color.Gray{5}))
	for _, c := range []struct {
		name  string
		files map[string][]byte
		file  string
		says  string
	}{
		{"text named .png", map[string][]byte{"c/a.png": []byte("hello, I am text\n")}, "c/a.png", "neither PNG nor JPEG"},
		{"empty file", map[string][]byte{"c/a.png": nil}, "c/a.png", "neither PNG nor JPEG"},
		{"bomb", map[string][]byte{"c/a.png": withSize(good, 60000, 60000)}, "c/a.png", "at most 67 million"},
		{"bomb of 2^31 by 2^31", map[string][]byte{"c/a.png": withSize(good, 1<<31-1, 1<<31-1)}, "c/a.png", ""},
		{"no pixels", map[string][]byte{"c/a.png": withSize(good, 0, 4)}, "c/a.png", ""},
		{"truncated header", map[string][]byte{"c/a.png": good[:20]}, "c/a.png", "truncated"},
		{"truncated pixels", map[string][]byte{"c/a.png": good[:50]}, "c/a.png", "not enough pixel data"},
		{"claims more pixels than it has", map[string][]byte{"c/a.png": withSize(good, 64, 64)}, "c/a.png", ""},
		{"images beside classes", map[string][]byte{"c/a.png": good, "a.png": good}, "", "1 images lie beside"},
		{"too deep", map[string][]byte{"1/2/3/4/5/6/7/8/9/a.png": good}, "1/2/3/4/5/6/7/8/9", "more than 8"},
	} {
		_, _, err := open(folderOf(t, c.files), Shape{4, 4, 1})
		refused(t, c.name, err, c.file, c.says)
	}
}

// progressive is a JPEG of w×h grey pixels in n scans, each of which says in a few bytes that nothing changes.
func progressive(w, h uint16, n int) []byte {
	b := []byte{0xff, 0xd8}
	b = append(append(b, 0xff, 0xdb, 0, 67, 0), bytes.Repeat([]byte{1}, 64)...) // quantisation
	b = append(b, 0xff, 0xc2, 0, 11, 8)
	b = binary.BigEndian.AppendUint16(binary.BigEndian.AppendUint16(b, h), w)
	b = append(b, 1, 1, 0x11, 0)
	b = append(append(b, 0xff, 0xc4, 0, 20, 0x10, 1), make([]byte, 15)...) // one Huffman code, 0,
	b = append(b, 0xe0)                                                    // for 2^14 blocks and more without coefficients
	for range n {
		b = append(b, 0xff, 0xda, 0, 8, 1, 1, 0, 1, 63, 0)
		b = append(b, make([]byte, 2+int(w)*int(h)/64>>13)...)
	}
	return append(b, 0xff, 0xd9)
}

// Without a limit 14 kB of scans of an image within the limits take seconds, and a megabyte minutes.
func TestJPEGOfManyScans(t *testing.T) {
	dst := make([]byte, 16)
	if err := decode(progressive(16, 16, maxScans), Shape{4, 4, 1}, dst); err != nil || dst[5] != 128 {
		t.Errorf("%d, %v", dst[5], err)
	}
	dir := folderOf(t, map[string][]byte{"c/a.jpg": progressive(8192, 8192, maxScans+1)})
	_, _, err := open(dir, Shape{4, 4, 1})
	refused(t, "bomb", err, "c/a.jpg", "has 101 scans")
	// Bytes behind the end do not count.
	if n := scans(append(progressive(16, 16, 3), progressive(16, 16, 7)...)); n != 3 {
		t.Errorf("%d scans of 3", n)
	}
}

func FuzzDecode(f *testing.F) {
	good := encodePNG(f, uniform(5, 3, color.NRGBA{1, 2, 3, 200}))
	f.Add(good)
	f.Add(withSize(good, 60000, 60000))
	var jpg bytes.Buffer
	if err := jpeg.Encode(&jpg, uniform(9, 7, color.White), nil); err != nil {
		f.Fatal(err)
	}
	f.Add(jpg.Bytes())
	f.Add(progressive(16, 8, 3))
	f.Fuzz(func(_ *testing.T, b []byte) {
		dst := make([]byte, 4*6*3)
		_ = decode(b, Shape{4, 6, 3}, dst)
	})
}
