package selftest

import (
	"fmt"
	"math"

	"ddgpu/gpu"
	"ddgpu/kernels"
)

func gradNormCase(n int) Case {
	return Case{Shape: fmt.Sprint(n), Bytes: 4 * float64(n), FLOPs: 2 * float64(n), Build: func(b *Builder) {
		g := b.Normal(n)
		norm := b.OutAcc("norm", b.Want(1, func() []float64 {
			var sum float64
			for _, x := range g {
				sum += x * x
			}
			return []float64{math.Sqrt(sum)}
		}))
		gp, scratch := b.InAcc(g), b.Scratch(int(kernels.GradNormScratch(int64(n))))
		b.Launch(func(q *kernels.Queue) { q.GradNorm(int64(n), norm, scratch, gp) })
	}}
}

// adamStep is a step of torch.optim.Adam or AdamW on one weight, and the average after it.
func adamStep(a kernels.Adam, s kernels.StepState, norm, p, m, v, ema, g float64) (nextP, nextM, nextV, nextEMA float64) {
	if a.MaxNorm > 0 {
		g *= min(1, a.MaxNorm/(norm+1e-6))
	}
	if a.Decoupled {
		p *= 1 - s.LearningRate*a.WeightDecay
	} else {
		g += a.WeightDecay * p
	}
	m = a.Beta1*m + (1-a.Beta1)*g
	v = a.Beta2*v + (1-a.Beta2)*g*g
	p -= s.LearningRate / s.Correction1 * m / (math.Sqrt(v)/math.Sqrt(s.Correction2) + a.Epsilon)
	return p, m, v, s.EMADecay*ema + (1-s.EMADecay)*p
}

func adamCase(n, step int, a kernels.Adam, norm float64) Case {
	a.N, a.Beta1, a.Beta2, a.Epsilon = int64(n), 0.9, 0.995, 1e-8
	shape := fmt.Sprintf("%d step %d decay %g max norm %g of %g", n, step, a.WeightDecay, a.MaxNorm, norm)
	if a.Decoupled {
		shape += " decoupled"
	}
	return Case{Shape: shape, Bytes: 36 * float64(n), FLOPs: 18 * float64(n), Build: func(b *Builder) {
		s := b.state(1)
		s.LearningRate, s.EMADecay = 3e-3, 0.97
		s.Correction1, s.Correction2 = 1-math.Pow(a.Beta1, float64(step)), 1-math.Pow(a.Beta2, float64(step))
		// The weights and moments, the last three of them zeros as between two tensors.
		var arrays, want [5][]float64 // p, m, v, ema, g
		for i := range arrays {
			x := b.Normal(n)
			for k := range x {
				if i == 2 {
					x[k] = b.RoundAcc(x[k] * x[k])
				}
				if n > 3 && k >= n-3 {
					x[k] = 0
				}
			}
			arrays[i], want[i] = x, append([]float64(nil), x...)
		}
		if !b.timing {
			for k := range n {
				want[0][k], want[1][k], want[2][k], want[3][k] = adamStep(a, s, norm,
					arrays[0][k], arrays[1][k], arrays[2][k], arrays[3][k], arrays[4][k])
			}
		}
		var at [5]gpu.Ptr
		for i, name := range []string{"p", "m", "v", "ema"} {
			at[i] = b.InOutAcc(name, arrays[i], want[i])
		}
		at[4] = b.InAcc(arrays[4])
		rounded := b.Out("rounded", want[0])
		np, state := b.InAcc([]float64{norm}), b.inState(s)
		b.Launch(func(q *kernels.Queue) { q.Adam(a, at[0], at[1], at[2], at[3], rounded, at[4], np, state) })
		b.Again("in two launches", func(q *kernels.Queue) {
			k := n / 2 / 16 * 16
			first, rest := a, a
			first.N, rest.N = int64(k), int64(n-k)
			q.Adam(first, at[0], at[1], at[2], at[3], rounded, at[4], np, state)
			q.Adam(rest, b.Offset(at[0], k), b.Offset(at[1], k), b.Offset(at[2], k), b.Offset(at[3], k), b.Offset(rounded, k), b.Offset(at[4], k), np, state)
		})
	}}
}

func roundCase(n int) Case {
	return Case{Shape: fmt.Sprint(n), Bytes: 8 * float64(n), Build: func(b *Builder) {
		x := make([]float64, n)
		for i := range x {
			x[i] = b.RoundAcc(b.rng.NormFloat64())
		}
		y, xp := b.Out("y", x), b.InAcc(x)
		b.Launch(func(q *kernels.Queue) { q.Round(int64(n), y, xp) })
	}}
}

func optimizerOps() []Op {
	norm := Op{Name: "grad_norm", Bench: []Case{gradNormCase(1_600_000)}}
	for _, n := range []int{1, 3, 67, 1000, 1 << 14, 1<<14 + 1, 100_003} {
		norm.Cases = append(norm.Cases, gradNormCase(n))
	}
	adam := Op{Name: "adam", Bench: []Case{adamCase(1_600_000, 100, kernels.Adam{MaxNorm: 1}, 3)}}
	for _, n := range []int{19, 67, 1024, 10_007} {
		adam.Cases = append(adam.Cases,
			adamCase(n, 1, kernels.Adam{}, 1),
			adamCase(n, 10, kernels.Adam{WeightDecay: 0.1, MaxNorm: 1}, 7),
			adamCase(n, 1000, kernels.Adam{WeightDecay: 0.1, Decoupled: true, MaxNorm: 5}, 3))
	}
	round := Op{Name: "round", Bench: []Case{roundCase(1_600_000)}}
	for _, n := range []int{1, 3, 67, 4100} {
		round.Cases = append(round.Cases, roundCase(n))
	}
	return []Op{norm, adam, round}
}
