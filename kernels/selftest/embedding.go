package selftest

import (
	"fmt"
	"math"

	"ddgpu/kernels"
)

// timestepReference is (sin(2π t f), cos(2π t f)); the product t·f is exact, so that a large t has its digits.
func timestepReference(t, freq []float64, dim int, flip bool) []float64 {
	half := dim / 2
	y := make([]float64, len(t)*dim)
	for n, time := range t {
		for i := range half {
			f := freq[i] + freq[half+i]
			p := time * f
			sin, cos := math.Sincos(2 * math.Pi * (p - math.Round(p) + math.FMA(time, f, -p)))
			if flip {
				sin, cos = cos, sin
			}
			y[n*dim+i], y[n*dim+half+i] = sin, cos
		}
	}
	return y
}

func timestepCase(n, dim int, flip bool, shift, maxTime float64) Case {
	shape := fmt.Sprintf("%d×%d shift %g t<%g", n, dim, shift, maxTime)
	if flip {
		shape += " cos first"
	}
	// In float32 the argument keeps 2⁻²⁵ turns, 2e-7 radians: what a product of rounded numbers would miss by far.
	return Case{Shape: shape, Bound: 1e-6, Bytes: 4 * float64(n*dim), FLOPs: 15 * float64(n*dim), Build: func(b *Builder) {
		t := make([]float64, n)
		for i := range t {
			t[i] = b.RoundAcc(b.rng.Float64() * maxTime)
		}
		freq := kernels.TimestepFrequencies(dim, shift, 10000)
		y := b.Out("y", b.Want(n*dim, func() []float64 { return timestepReference(t, freq, dim, flip) }))
		tp, fp := b.InAcc(t), b.InAcc(freq)
		b.Launch(func(q *kernels.Queue) { q.TimestepEmbedding(n, dim, flip, y, tp, fp) })
	}}
}

// labels are random classes.
func (b *Builder) labels(n, classes int) []int32 {
	l := make([]int32, n)
	for i := range l {
		l[i] = int32(b.rng.IntN(classes))
	}
	return l
}

func embeddingForwardCase(n, c, classes int) Case {
	return Case{Shape: fmt.Sprintf("%d×%d of %d", n, c, classes), Bytes: 12 * float64(n*c), FLOPs: float64(n * c), Build: func(b *Builder) {
		x, table, labels := b.Normal(n*c), b.Normal(classes*c), b.labels(n, classes)
		y := b.Out("y", b.Want(n*c, func() []float64 {
			y := make([]float64, n*c)
			for i := range y {
				y[i] = x[i] + table[int(labels[i/c])*c+i%c]
			}
			return y
		}))
		xp, tp, lp := b.In(x), b.InAcc(table), b.InInt32(labels)
		b.Launch(func(q *kernels.Queue) { q.EmbeddingForward(n, c, classes, y, xp, tp, lp) })
	}}
}

func embeddingBackwardCase(s kernels.Shards, images, c, classes int) Case {
	shape := fmt.Sprintf("%d in %d shards of %d, %d×%d", images, s.Count, s.Size, classes, c)
	return Case{Shape: shape, Bytes: 4 * float64(images*c+s.Count*classes*c), FLOPs: float64(images * c), Build: func(b *Builder) {
		dy, labels := b.Normal(images*c), b.labels(images, classes)
		size := classes * c
		partial := b.OutAcc("partial", b.Want(s.Count*size, func() []float64 {
			p := make([]float64, s.Count*size)
			for i := range images {
				for j := range c {
					p[i/s.Size*size+int(labels[i])*c+j] += dy[i*c+j]
				}
			}
			return p
		}))
		dyp, lp := b.In(dy), b.InInt32(labels)
		b.Launch(func(q *kernels.Queue) { q.EmbeddingBackward(s, images, c, classes, partial, int64(size), dyp, lp) })
		b.Again("a shard a launch", func(q *kernels.Queue) {
			for k := range s.Count {
				left := max(0, min(s.Size, images-k*s.Size))
				q.EmbeddingBackward(kernels.Shards{Count: 1, Size: s.Size}, left, c, classes, b.Offset(partial, k*size), int64(size),
					b.Offset(dyp, min(images, k*s.Size)*c), lp.Offset(int64(4*min(images, k*s.Size))))
			}
		})
	}}
}

func embeddingOps() []Op {
	timestep := Op{Name: "timestep_embedding", Bench: []Case{timestepCase(64, 128, false, 1, 1000)}}
	for _, dim := range []int{2, 3, 8, 33, 64, 128, 130} {
		timestep.Cases = append(timestep.Cases, timestepCase(5, dim, false, 0, 1000), timestepCase(67, dim, true, 0.5, 1e6))
	}
	return []Op{timestep, {
		Name: "embedding_forward",
		Cases: []Case{embeddingForwardCase(1, 1, 1), embeddingForwardCase(7, 5, 3), embeddingForwardCase(65, 32, 10),
			embeddingForwardCase(130, 66, 1000)},
		Bench: []Case{embeddingForwardCase(64, 128, 10)},
	}, {
		Name: "embedding_backward",
		Cases: []Case{
			embeddingBackwardCase(kernels.Shards{Count: 1, Size: 1}, 1, 1, 1),
			embeddingBackwardCase(kernels.Shards{Count: 8, Size: 2}, 13, 5, 3), // a short shard and an empty one
			embeddingBackwardCase(kernels.Shards{Count: 4, Size: 16}, 64, 32, 10),
			embeddingBackwardCase(kernels.Shards{Count: 2, Size: 37}, 74, 66, 150),
		},
		Bench: []Case{embeddingBackwardCase(kernels.Shards{Count: 8, Size: 8}, 64, 128, 10)},
	}}
}
