package selftest

import (
	"fmt"

	"ddgpu/kernels"
)

func pixelSumCase(n, hw, c, row int) Case {
	return Case{Shape: fmt.Sprintf("%d×%d×%d, rows of %d", n, hw, c, row), Bytes: 4 * float64(n*c*(hw+1)), FLOPs: float64(n * hw * c), Build: func(b *Builder) {
		x := b.Normal(n * hw * c)
		want := b.Want(n*c, func() []float64 {
			sums := make([]float64, n*c)
			for i, v := range x {
				sums[i/(hw*c)*c+i%c] += v
			}
			return sums
		})
		rows := kernels.Rows{At: b.OutAcc("out", spread(want, c, row)), Stride: row}
		rounded, xp := b.Out("rounded", want), b.In(x)
		b.Launch(func(q *kernels.Queue) { q.PixelSum(n, hw, c, rows, rounded, xp) })
		b.Again("each output in a launch", func(q *kernels.Queue) {
			q.PixelSum(n, hw, c, rows, 0, xp)
			q.PixelSum(n, hw, c, kernels.Rows{}, rounded, xp)
		})
		if half := n / 2; half > 0 {
			b.Again("in two launches", func(q *kernels.Queue) {
				q.PixelSum(half, hw, c, rows, rounded, xp)
				q.PixelSum(n-half, hw, c, b.rowsFrom(rows, half), b.Offset(rounded, half*c), b.Offset(xp, half*hw*c))
			})
		}
	}}
}

// spread is rows of c values as rows of `row`, with what no launch may write between them.
func spread(v []float64, c, row int) []float64 {
	out := untouched(len(v) / c * row)
	for i, x := range v {
		out[i/c*row+i%c] = x
	}
	return out
}

// rowsFrom is rows from the n-th on.
func (b *Builder) rowsFrom(r kernels.Rows, n int) kernels.Rows {
	return kernels.Rows{At: b.Offset(r.At, n*r.Stride), Stride: r.Stride}
}

// exact is the bound of sums whose order is part of their definition: the reference rounds after each addition, so nothing may differ.
const exact = 1e-30

func shardSumCase(s kernels.Shards, n, c, row int, activations bool) Case {
	shape := fmt.Sprintf("%d×%d, rows of %d, in %d shards of %d", n, c, row, s.Count, s.Size)
	place, launch := (*Builder).InAcc, (*kernels.Queue).ShardSum
	if activations {
		shape += ", activations"
		place, launch = (*Builder).In, (*kernels.Queue).ShardSumActivations
	}
	return Case{Shape: shape, Bytes: 4 * float64(n*c+s.Count*c), FLOPs: float64(n * c), Bound: exact, Build: func(b *Builder) {
		perImage := b.Normal(n * c)
		stride := (c + 31) / 16 * 16
		partial := b.OutAcc("partial", b.Want(s.Count*stride, func() []float64 {
			want := untouched(s.Count * stride)
			for shard := range s.Count {
				for k := range c {
					var sum float64
					for i := shard * s.Size; i < min(n, (shard+1)*s.Size); i++ {
						sum = b.RoundAcc(sum + perImage[i*c+k])
					}
					want[shard*stride+k] = sum
				}
			}
			return want
		}))
		rows := kernels.Rows{At: place(b, spread(perImage, c, row)), Stride: row}
		b.Launch(func(q *kernels.Queue) { launch(q, s, n, c, partial, int64(stride), rows) })
		if s.Count > 1 {
			b.Again("in two launches of half of the shards", func(q *kernels.Queue) {
				halves(s, n, func(first int, s kernels.Shards, before, n int) {
					launch(q, s, n, c, b.Offset(partial, first*stride), int64(stride), b.rowsFrom(rows, before))
				})
			})
		}
	}}
}

func treeSumCase(count, n, stride int) Case {
	shape := fmt.Sprintf("%d×%d stride %d", count, n, stride)
	return Case{Shape: shape, Bytes: 4 * float64((count+1)*n), FLOPs: float64((count - 1) * n), Bound: exact, Build: func(b *Builder) {
		partial := b.Normal(count * stride)
		out := b.OutAcc("out", b.Want(n, func() []float64 {
			sums := make([]float64, n)
			for k := range sums {
				var sum func(first, count int) float64
				sum = func(first, count int) float64 {
					if count == 1 {
						return partial[first*stride+k]
					}
					return b.RoundAcc(sum(first, count/2) + sum(first+count/2, count/2))
				}
				sums[k] = sum(0, count)
			}
			return sums
		}))
		in := b.InAcc(partial)
		b.Launch(func(q *kernels.Queue) { q.TreeSum(count, int64(n), out, in, int64(stride)) })
		if count > 1 {
			half := b.Scratch(2 * stride)
			b.Again("by halves", func(q *kernels.Queue) {
				q.TreeSum(count/2, int64(n), half, in, int64(stride))
				q.TreeSum(count/2, int64(n), b.Offset(half, stride), b.Offset(in, count/2*stride), int64(stride))
				q.TreeSum(2, int64(n), out, half, int64(stride))
			})
		}
	}}
}

func reduceOps() []Op {
	var pixel, shard, tree []Case
	for _, s := range [][4]int{ // N, HW, C, row
		{2, 35, 17, 17}, {1, 1, 1, 5}, {3, 100, 32, 32}, {2, 784, 48, 1000}, {1, 33, 5, 16}, {2, 49, 96, 99}, {2, 1, 40, 64}, {3, 1025, 3, 48},
	} {
		pixel = append(pixel, pixelSumCase(s[0], s[1], s[2], s[3]))
	}
	for _, s := range [][5]int{ // shards, their size, N, C, row
		{4, 2, 8, 16, 16}, {4, 2, 5, 33, 33}, {8, 1, 8, 1, 1}, {8, 1, 3, 96, 100}, {1, 7, 7, 100, 112}, {2, 4, 5, 1030, 1030},
		{2, 3, 6, 4099, 4112}, {2, 3, 5, 4100, 4101}, {4, 2, 7, 8222, 8224},
	} {
		shards := kernels.Shards{Count: s[0], Size: s[1]}
		shard = append(shard, shardSumCase(shards, s[2], s[3], s[4], false), shardSumCase(shards, s[2], s[3], s[4], true))
	}
	for _, s := range [][3]int{{1, 5, 16}, {2, 100, 112}, {4, 1, 1}, {8, 1000, 1008}, {8, 37, 37}, {16, 4100, 4112}, {32, 63, 64}} {
		tree = append(tree, treeSumCase(s[0], s[1], s[2]))
	}
	const parameters = 35746307
	return []Op{
		{Name: "pixel_sum", Cases: pixel, Bench: []Case{pixelSumCase(32, 784, 32, 32), pixelSumCase(16, 1024, 128, 128), pixelSumCase(16, 256, 256, 256)}},
		{Name: "shard_sum", Cases: shard, Bench: []Case{
			shardSumCase(kernels.Shards{Count: 8, Size: 4}, 32, 128, 128, false), shardSumCase(kernels.Shards{Count: 8, Size: 4}, 32, 8003, 8016, false),
		}},
		{Name: "tree_sum", Cases: tree, Bench: []Case{treeSumCase(8, 500000, 500000), treeSumCase(8, parameters/8, (parameters/8+15)/16*16)}},
	}
}
