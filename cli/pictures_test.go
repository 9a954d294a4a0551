package main

import (
	"image"
	"image/color"
	"image/png"
	"os"
	"path/filepath"
	"testing"
)

func decodePNG(t *testing.T, path string) image.Image {
	t.Helper()
	file, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	img, err := png.Decode(file)
	if err != nil {
		t.Fatal(err)
	}
	return img
}

func TestGrid(t *testing.T) {
	for _, channels := range []int{1, 3} {
		p := pictures{N: 5, H: 2, W: 4, C: channels}
		for i := range p.N * p.H * p.W * p.C {
			p.Pixels = append(p.Pixels, byte(i))
		}
		folder := t.TempDir()
		path := filepath.Join(folder, "grid.png")
		if err := writeGrid(path, p); err != nil {
			t.Fatal(err)
		}
		grid := decodePNG(t, path)
		if size := grid.Bounds().Size(); size != image.Pt(3*(4+gridGap)+gridGap, 2*(2+gridGap)+gridGap) {
			t.Errorf("%d channels: the grid is %v", channels, size)
		}
		// Image 4 is the second of the second row; its pixel (3, 1).
		at := grid.At(gridGap+(4+gridGap)+3, gridGap+(2+gridGap)+1)
		value := byte((4*8 + 7) * channels)
		want := color.Color(color.Gray{value})
		if channels == 3 {
			want = color.NRGBA{value, value + 1, value + 2, 255}
		}
		if !sameColor(at, want) {
			t.Errorf("%d channels: pixel is %v, want %v", channels, at, want)
		}
		if !sameColor(grid.At(0, 0), color.Gray{128}) || !sameColor(grid.At(grid.Bounds().Dx()-1, grid.Bounds().Dy()-1), color.Gray{128}) {
			t.Errorf("%d channels: the corners are not grey", channels)
		}
		if err := writePNGs(filepath.Join(folder, "all"), 10, p); err != nil {
			t.Fatal(err)
		}
		if one := decodePNG(t, filepath.Join(folder, "all", "00014.png")); !sameColor(one.At(3, 1), want) {
			t.Errorf("%d channels: pixel of the single image is %v, want %v", channels, one.At(3, 1), want)
		}
	}
}

func sameColor(a, b color.Color) bool {
	r, g, bl, al := a.RGBA()
	r2, g2, b2, a2 := b.RGBA()
	return r == r2 && g == g2 && bl == b2 && al == a2
}
