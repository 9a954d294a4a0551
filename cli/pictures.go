package main

import (
	"fmt"
	"image"
	"image/color"
	"image/png"
	"io"
	"math"
	"os"
	"path/filepath"
)

// pictures are N images of H×W pixels with C = 1 (grey) or 3 (RGB) channels: uint8 in the order [N][H][W][C].
type pictures struct {
	N, H, W, C int
	Pixels     []byte
}

// at is image i, without a copy where its format has one.
func (p pictures) at(i int) image.Image {
	size := p.H * p.W * p.C
	pixels := p.Pixels[i*size : (i+1)*size]
	bounds := image.Rect(0, 0, p.W, p.H)
	if p.C == 1 {
		return &image.Gray{Pix: pixels, Stride: p.W, Rect: bounds}
	}
	rgba := image.NewNRGBA(bounds)
	for j := range p.H * p.W {
		copy(rgba.Pix[4*j:], pixels[p.C*j:p.C*j+3])
		rgba.Pix[4*j+3] = 255
	}
	return rgba
}

// gridGap is the width of the lines between the images of a grid, in pixels.
const gridGap = 2

// grid lays the images out row by row in a rectangle that is nearly square.
func (p pictures) grid() image.Image {
	columns := int(math.Ceil(math.Sqrt(float64(p.N))))
	rows := (p.N + columns - 1) / columns
	bounds := image.Rect(0, 0, columns*(p.W+gridGap)+gridGap, rows*(p.H+gridGap)+gridGap)
	var out interface {
		image.Image
		Set(x, y int, c color.Color)
	} = image.NewNRGBA(bounds)
	if p.C == 1 {
		out = image.NewGray(bounds)
	}
	for y := range bounds.Dy() {
		for x := range bounds.Dx() {
			out.Set(x, y, color.Gray{128})
		}
	}
	for i := range p.N {
		img := p.at(i)
		left, top := gridGap+i%columns*(p.W+gridGap), gridGap+i/columns*(p.H+gridGap)
		for y := range p.H {
			for x := range p.W {
				out.Set(left+x, top+y, img.At(x, y))
			}
		}
	}
	return out
}

// writeGrid writes all images as one PNG.
func writeGrid(path string, p pictures) error {
	return writeFile(path, func(w io.Writer) error { return png.Encode(w, p.grid()) })
}

// writePNGs writes each image as FOLDER/00000.png and so on, numbered from first.
func writePNGs(folder string, first int, p pictures) error {
	if err := os.MkdirAll(folder, 0o755); err != nil {
		return fmt.Errorf("creating the folder of samples: %w", err)
	}
	for i := range p.N {
		path := filepath.Join(folder, fmt.Sprintf("%05d.png", first+i))
		if err := writeFile(path, func(w io.Writer) error { return png.Encode(w, p.at(i)) }); err != nil {
			return err
		}
	}
	return nil
}

// array is the images as NumPy knows them: uint8, [N, H, W, C].
func (p pictures) array() *array {
	return &array{[]int{p.N, p.H, p.W, p.C}, "|u1", p.Pixels}
}
