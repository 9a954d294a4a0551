package selftest

import (
	"fmt"
	"math"

	"ddgpu/gpu"
	"ddgpu/kernels"
)

// attentionTensors are what attention reads and makes.
type attentionTensors struct {
	q, k, v, y, lse       []float64
	dy, dq, dk, dv, delta []float64
}

// compute makes y and lse from q, k, v and, where dy is given, the gradients. The backward pass reads y as it was stored.
func (a *attentionTensors) compute(b *Builder, g kernels.Attention) {
	q, k, v, dy := factors(b, a.q), factors(b, a.k), factors(b, a.v), factors(b, a.dy)
	stride := g.Heads * g.Dim
	for sequence := range g.N * g.Heads {
		base := sequence/g.Heads*g.L*stride + sequence%g.Heads*g.Dim
		row := func(x []float64, i int) []float64 { return x[base+i*stride:][:g.Dim] }
		score := make([]float64, g.L)
		for i := range g.L {
			top := math.Inf(-1)
			for j := range g.L {
				score[j] = g.Scale * dot(row(q, i), row(k, j))
				top = math.Max(top, score[j])
			}
			sum := 0.0
			for j := range g.L {
				sum += math.Exp(score[j] - top)
			}
			a.lse[sequence*g.L+i] = top + math.Log(sum)
			for j := range g.L {
				score[j] = math.Exp(score[j]-top) / sum
				addScaled(row(a.y, i), score[j], row(v, j))
			}
			if a.dy == nil {
				continue
			}
			delta := 0.0
			for d, y := range row(a.y, i) {
				delta += row(a.dy, i)[d] * b.Round(y)
			}
			a.delta[sequence*g.L+i] = delta
			for j, p := range score {
				ds := p * (dot(row(dy, i), row(v, j)) - delta) * g.Scale
				addScaled(row(a.dq, i), ds, row(k, j))
				addScaled(row(a.dk, j), ds, row(q, i))
				addScaled(row(a.dv, j), p, row(dy, i))
			}
		}
	}
}

func dot(a, b []float64) float64 {
	sum := 0.0
	for i, x := range a {
		sum += x * b[i]
	}
	return sum
}

func addScaled(y []float64, a float64, x []float64) {
	for i := range y {
		y[i] += a * x[i]
	}
}

// attentionCase is one shape; images launched one by one must give the same bits.
func attentionCase(g kernels.Attention, backward bool) Case {
	rows, values := g.N*g.L*g.Heads*g.Dim, g.N*g.Heads*g.L
	product := 2 * float64(values) * float64(g.L) * float64(g.Dim)
	c := Case{
		Shape: fmt.Sprintf("%d×%d, %d heads of %d", g.N, g.L, g.Heads, g.Dim),
		Bytes: 4 * float64(4*rows+values), FLOPs: 2 * product,
	}
	if backward {
		// Products: the scores and dy·v twice, then dq, dk and dv.
		c.Bytes, c.FLOPs = 4*float64(8*rows+values), 7*product
	}
	if g.Scale != attentionScale(g.Dim) {
		c.Shape += fmt.Sprintf(", scale %v", g.Scale)
	}
	c.Build = func(b *Builder) {
		a := attentionTensors{q: b.Normal(rows), k: b.Normal(rows), v: b.Normal(rows), y: make([]float64, rows), lse: make([]float64, values)}
		q, k, v := b.In(a.q), b.In(a.k), b.In(a.v)
		if backward {
			a.dy, a.delta = b.Normal(rows), make([]float64, values)
			a.dq, a.dk, a.dv = make([]float64, rows), make([]float64, rows), make([]float64, rows)
		}
		if !b.timing {
			a.compute(b, g)
		}
		one := g
		one.N = 1
		// each calls f for each image with the address of its part of rows and of values.
		each := func(f func(rows, values func(gpu.Ptr) gpu.Ptr)) {
			for n := range g.N {
				f(func(p gpu.Ptr) gpu.Ptr { return b.Offset(p, n*rows/g.N) }, func(p gpu.Ptr) gpu.Ptr { return b.Offset(p, n*values/g.N) })
			}
		}
		if !backward {
			y, lse := b.Out("y", a.y), b.OutAcc("lse", a.lse)
			b.Launch(func(queue *kernels.Queue) { queue.AttentionForward(g, y, lse, q, k, v) })
			b.Again("image by image", func(queue *kernels.Queue) {
				each(func(r, s func(gpu.Ptr) gpu.Ptr) { queue.AttentionForward(one, r(y), s(lse), r(q), r(k), r(v)) })
			})
			return
		}
		dy, y, lse := b.In(a.dy), b.In(a.y), b.InAcc(a.lse)
		dq, dk, dv, delta := b.Out("dq", a.dq), b.Out("dk", a.dk), b.Out("dv", a.dv), b.OutAcc("delta", a.delta)
		b.Launch(func(queue *kernels.Queue) { queue.AttentionBackward(g, dq, dk, dv, delta, dy, y, lse, q, k, v) })
		b.Again("image by image", func(queue *kernels.Queue) {
			each(func(r, s func(gpu.Ptr) gpu.Ptr) {
				queue.AttentionBackward(one, r(dq), r(dk), r(dv), s(delta), r(dy), r(y), s(lse), r(q), r(k), r(v))
			})
		})
	}
	return c
}

func attentionScale(dim int) float64 { return math.Pow(float64(dim), -0.5) }

func attentionOps() []Op {
	forward, backward := Op{Name: "attention_forward"}, Op{Name: "attention_backward"}
	add := func(g kernels.Attention, large bool) {
		if g.Scale == 0 {
			g.Scale = attentionScale(g.Dim)
		}
		f, b := attentionCase(g, false), attentionCase(g, true)
		f.Large, b.Large = large, large
		forward.Cases = append(forward.Cases, f)
		// One key has probability 1 whatever the scores: dq and dk are 0, and a difference of two rounded products is all that is left.
		if g.L > 1 {
			backward.Cases = append(backward.Cases, b)
		}
	}
	for _, g := range []kernels.Attention{
		{N: 1, L: 1, Heads: 1, Dim: 5}, {N: 2, L: 1, Heads: 3, Dim: 33}, {N: 1, L: 1, Heads: 2, Dim: 64}, {N: 3, L: 2, Heads: 1, Dim: 256},
		{N: 3, L: 7, Heads: 2, Dim: 1}, {N: 2, L: 7, Heads: 3, Dim: 8}, {N: 1, L: 7, Heads: 8, Dim: 64}, {N: 2, L: 7, Heads: 1, Dim: 128},
		{N: 1, L: 7, Heads: 2, Dim: 160}, {N: 1, L: 7, Heads: 1, Dim: 256}, {N: 2, L: 13, Heads: 2, Dim: 12}, {N: 1, L: 15, Heads: 1, Dim: 129},
		{N: 1, L: 16, Heads: 2, Dim: 16}, {N: 1, L: 17, Heads: 1, Dim: 255}, {N: 3, L: 31, Heads: 1, Dim: 40}, {N: 2, L: 33, Heads: 5, Dim: 8},
		{N: 1, L: 33, Heads: 3, Dim: 12}, {N: 2, L: 33, Heads: 1, Dim: 33}, {N: 1, L: 33, Heads: 4, Dim: 40}, {N: 1, L: 33, Heads: 2, Dim: 96},
		{N: 1, L: 33, Heads: 1, Dim: 160}, {N: 1, L: 33, Heads: 1, Dim: 256}, {N: 3, L: 49, Heads: 2, Dim: 32}, {N: 1, L: 49, Heads: 1, Dim: 100},
		{N: 1, L: 63, Heads: 2, Dim: 31}, {N: 2, L: 64, Heads: 2, Dim: 64}, {N: 1, L: 64, Heads: 1, Dim: 256}, {N: 1, L: 65, Heads: 8, Dim: 8},
		{N: 1, L: 65, Heads: 2, Dim: 33}, {N: 1, L: 65, Heads: 3, Dim: 40}, {N: 3, L: 65, Heads: 1, Dim: 128}, {N: 1, L: 65, Heads: 1, Dim: 160},
		{N: 1, L: 97, Heads: 1, Dim: 65}, {N: 1, L: 127, Heads: 1, Dim: 20}, {N: 1, L: 129, Heads: 1, Dim: 96}, {N: 1, L: 196, Heads: 1, Dim: 100},
		{N: 2, L: 196, Heads: 2, Dim: 8}, {N: 1, L: 257, Heads: 3, Dim: 5}, {N: 1, L: 257, Heads: 2, Dim: 12}, {N: 1, L: 257, Heads: 1, Dim: 33},
		{N: 1, L: 257, Heads: 1, Dim: 64},
	} {
		add(g, false)
	}
	// Scores so large that the running maximum grows from tile to tile and few keys matter; scores of the other sign.
	add(kernels.Attention{N: 1, L: 201, Heads: 2, Dim: 16, Scale: 2}, false)
	add(kernels.Attention{N: 1, L: 70, Heads: 1, Dim: 24, Scale: -0.3}, false)
	for _, g := range []kernels.Attention{
		{N: 1, L: 257, Heads: 1, Dim: 128}, {N: 1, L: 257, Heads: 1, Dim: 256}, {N: 1, L: 1024, Heads: 1, Dim: 8}, {N: 1, L: 1024, Heads: 1, Dim: 64},
	} {
		add(g, true)
	}
	for _, g := range []kernels.Attention{{N: 32, L: 49, Heads: 2, Dim: 32}, {N: 8, L: 256, Heads: 1, Dim: 256}} {
		g.Scale = attentionScale(g.Dim)
		forward.Bench = append(forward.Bench, attentionCase(g, false))
		backward.Bench = append(backward.Bench, attentionCase(g, true))
	}
	return []Op{forward, backward}
}
