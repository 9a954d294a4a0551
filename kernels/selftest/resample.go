package selftest

import (
	"fmt"

	"ddgpu/gpu"
	"ddgpu/kernels"
)

// resample is a launcher with its reference, from [n][h][w][c] of one side to the other.
type resample struct {
	name      string
	small     bool // the input is the smaller side
	reference func(n, h, w, c int, in []float64) []float64
	launch    func(q *kernels.Queue, n, h, w, c int, out, in gpu.Ptr)
}

// at is the index of a pixel's first channel.
func at(n, y, x, h, w, c int) int { return ((n*h+y)*w + x) * c }

// Of each, h and w are the size of what upsampling or pooling reads.
var resamples = []resample{
	{"upsample2_forward", true, func(n, h, w, c int, x []float64) []float64 {
		y := make([]float64, n*4*h*w*c)
		eachPixel(n, 2*h, 2*w, func(i, row, column int) {
			copy(y[at(i, row, column, 2*h, 2*w, c):][:c], x[at(i, row/2, column/2, h, w, c):])
		})
		return y
	}, (*kernels.Queue).Upsample2Forward},
	{"upsample2_backward", false, func(n, h, w, c int, dy []float64) []float64 {
		dx := make([]float64, n*h*w*c)
		eachPixel(n, 2*h, 2*w, func(i, row, column int) {
			for k := range c {
				dx[at(i, row/2, column/2, h, w, c)+k] += dy[at(i, row, column, 2*h, 2*w, c)+k]
			}
		})
		return dx
	}, (*kernels.Queue).Upsample2Backward},
	{"avgpool2_forward", false, func(n, h, w, c int, x []float64) []float64 {
		y := make([]float64, n*(h/2)*(w/2)*c)
		eachPixel(n, h/2*2, w/2*2, func(i, row, column int) {
			for k := range c {
				y[at(i, row/2, column/2, h/2, w/2, c)+k] += x[at(i, row, column, h, w, c)+k] / 4
			}
		})
		return y
	}, (*kernels.Queue).AvgPool2Forward},
	{"avgpool2_backward", true, func(n, h, w, c int, dy []float64) []float64 {
		dx := make([]float64, n*h*w*c)
		eachPixel(n, h/2*2, w/2*2, func(i, row, column int) {
			for k := range c {
				dx[at(i, row, column, h, w, c)+k] = dy[at(i, row/2, column/2, h/2, w/2, c)+k] / 4
			}
		})
		return dx
	}, (*kernels.Queue).AvgPool2Backward},
}

func eachPixel(n, h, w int, f func(i, row, column int)) {
	for i := range n {
		for row := range h {
			for column := range w {
				f(i, row, column)
			}
		}
	}
}

// sizes of one image of the input and of the output.
func (r resample) sizes(h, w, c int) (in, out int) {
	big, small := 4*h*w*c, h*w*c
	if r.name[0] == 'a' {
		big, small = h*w*c, (h/2)*(w/2)*c
	}
	if r.small {
		return small, big
	}
	return big, small
}

func resampleCase(r resample, n, h, w, c int) Case {
	in, out := r.sizes(h, w, c)
	return Case{Shape: fmt.Sprintf("%d×%d×%d×%d", n, h, w, c), Bytes: 4 * float64(n*(in+out)), Build: func(b *Builder) {
		x := b.Normal(n * in)
		y := b.Out("output", b.Want(n*out, func() []float64 { return r.reference(n, h, w, c, x) }))
		xp := b.In(x)
		b.Launch(func(q *kernels.Queue) { r.launch(q, n, h, w, c, y, xp) })
		if half := n / 2; half > 0 {
			b.Again("in two launches", func(q *kernels.Queue) {
				r.launch(q, half, h, w, c, y, xp)
				r.launch(q, n-half, h, w, c, b.Offset(y, half*out), b.Offset(xp, half*in))
			})
		}
	}}
}

func resampleOps() []Op {
	var ops []Op
	for _, r := range resamples {
		op := Op{Name: r.name}
		for _, s := range [][4]int{{2, 5, 4, 3}, {1, 2, 2, 1}, {3, 7, 5, 16}, {2, 6, 9, 48}, {1, 3, 3, 17}, {2, 4, 6, 132}, {2, 2, 3, 96}} {
			op.Cases = append(op.Cases, resampleCase(r, s[0], s[1], s[2], s[3]))
		}
		for _, s := range [][4]int{{32, 14, 14, 32}, {32, 28, 28, 32}, {16, 16, 16, 256}} {
			op.Bench = append(op.Bench, resampleCase(r, s[0], s[1], s[2], s[3]))
		}
		ops = append(ops, op)
	}
	return ops
}
