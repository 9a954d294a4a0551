package selftest

import (
	"fmt"

	"ddgpu/kernels"
)

// elementCounts are one element, and counts around what a vector, a thread and a block take.
var elementCounts = []int{1, 3, 17, 1023, 1025, 4096, 9001}

func addCase(n int, inPlace bool) Case {
	shape := fmt.Sprint(n)
	if inPlace {
		shape += " in place"
	}
	return Case{Shape: shape, Bytes: 12 * float64(n), FLOPs: float64(n), Build: func(b *Builder) {
		a, c := b.Normal(n), b.Normal(n)
		want := b.Want(n, func() []float64 {
			y := make([]float64, n)
			for i := range y {
				y[i] = a[i] + c[i]
			}
			return y
		})
		cp := b.In(c)
		if inPlace {
			y := b.InOut("y", a, want)
			b.Launch(func(q *kernels.Queue) { q.Add(int64(n), y, y, cp) })
			return
		}
		y, ap := b.Out("y", want), b.In(a)
		b.Launch(func(q *kernels.Queue) { q.Add(int64(n), y, ap, cp) })
	}}
}

func scaleCase(n int, inPlace bool) Case {
	shape := fmt.Sprint(n)
	if inPlace {
		shape += " in place"
	}
	return Case{Shape: shape, Bytes: 8 * float64(n), FLOPs: float64(n), Build: func(b *Builder) {
		x, factor := b.Normal(n), b.Round(b.Rand().NormFloat64())
		want := b.Want(n, func() []float64 {
			y := make([]float64, n)
			for i := range y {
				y[i] = x[i] * factor
			}
			return y
		})
		if inPlace {
			y := b.InOut("y", x, want)
			b.Launch(func(q *kernels.Queue) { q.Scale(int64(n), y, y, factor) })
			return
		}
		y, xp := b.Out("y", want), b.In(x)
		b.Launch(func(q *kernels.Queue) { q.Scale(int64(n), y, xp, factor) })
	}}
}

// siluInputs are draws of scale 3 and, where there is room, values at which the exponential is 1, large, and beyond the range of float32.
func siluInputs(b *Builder, n int) []float64 {
	x := b.Normal(n)
	for i := range x {
		x[i] = b.Round(3 * x[i])
	}
	if n > 16 {
		copy(x[n-7:], []float64{0, 30, -30, 88, -88, 1000, -1000})
	}
	return x
}

func siluForwardCase(n int) Case {
	return Case{Shape: fmt.Sprint(n), Bytes: 8 * float64(n), FLOPs: 5 * float64(n), Build: func(b *Builder) {
		x := siluInputs(b, n)
		y := b.Out("y", b.Want(n, func() []float64 {
			y := make([]float64, n)
			for i, v := range x {
				y[i] = v * sigmoid(v)
			}
			return y
		}))
		xp := b.In(x)
		b.Launch(func(q *kernels.Queue) { q.SiLUForward(int64(n), y, xp) })
	}}
}

func siluBackwardCase(n int) Case {
	return Case{Shape: fmt.Sprint(n), Bytes: 12 * float64(n), FLOPs: 9 * float64(n), Build: func(b *Builder) {
		x, dy := siluInputs(b, n), b.Normal(n)
		dx := b.Out("dx", b.Want(n, func() []float64 {
			dx := make([]float64, n)
			for i, v := range x {
				s := sigmoid(v)
				dx[i] = dy[i] * s * (1 + v*(1-s))
			}
			return dx
		}))
		dyp, xp := b.In(dy), b.In(x)
		b.Launch(func(q *kernels.Queue) { q.SiLUBackward(int64(n), dx, dyp, xp) })
	}}
}

func concatCase(rows, ca, cb int, backward bool) Case {
	c := ca + cb
	return Case{Shape: fmt.Sprintf("%d×(%d+%d)", rows, ca, cb), Bytes: 8 * float64(rows*c), Build: func(b *Builder) {
		wide := b.Normal(rows * c)
		part := func(first, width int) []float64 {
			v := make([]float64, 0, rows*width)
			for r := range rows {
				v = append(v, wide[r*c+first:r*c+first+width]...)
			}
			return v
		}
		x, y := part(0, ca), part(ca, cb)
		if backward {
			da, db, dy := b.Out("da", x), b.Out("db", y), b.In(wide)
			b.Launch(func(q *kernels.Queue) { q.ConcatBackward(int64(rows), ca, cb, da, db, dy) })
			return
		}
		out, xp, yp := b.Out("y", wide), b.In(x), b.In(y)
		b.Launch(func(q *kernels.Queue) { q.ConcatForward(int64(rows), ca, cb, out, xp, yp) })
	}}
}

func elementOps() []Op {
	var add, scale, forward, backward, concat, split []Case
	for _, n := range elementCounts {
		add = append(add, addCase(n, false), addCase(n, true))
		scale = append(scale, scaleCase(n, false), scaleCase(n, true))
		forward = append(forward, siluForwardCase(n))
		backward = append(backward, siluBackwardCase(n))
	}
	// Widths around a vector, borders between the two parts at and beside its multiples, more channels than a thread takes.
	for _, s := range [][3]int{{35, 16, 32}, {7, 3, 5}, {9, 17, 16}, {5, 1, 96}, {10, 6, 2}, {13, 4, 4}, {3, 200, 136}, {1, 1, 1}, {21, 130, 33}} {
		concat = append(concat, concatCase(s[0], s[1], s[2], false))
		split = append(split, concatCase(s[0], s[1], s[2], true))
	}
	const small, large = 32 * 28 * 28 * 32, 16 * 32 * 32 * 128
	return []Op{
		{Name: "add", Cases: add, Bench: []Case{addCase(small, false), addCase(large, false)}},
		{Name: "scale", Cases: scale, Bench: []Case{scaleCase(small, false), scaleCase(large, false)}},
		{Name: "silu_forward", Cases: forward, Bench: []Case{siluForwardCase(32 * 128), siluForwardCase(small), siluForwardCase(large)}},
		{Name: "silu_backward", Cases: backward, Bench: []Case{siluBackwardCase(32 * 128), siluBackwardCase(small), siluBackwardCase(large)}},
		{Name: "concat_forward", Cases: concat, Bench: []Case{concatCase(32*784, 32, 32, false), concatCase(16*1024, 128, 128, false)}},
		{Name: "concat_backward", Cases: split, Bench: []Case{concatCase(32*784, 32, 32, true), concatCase(16*1024, 128, 128, true)}},
	}
}
