package kernels_test

import (
	"math"
	"testing"

	"ddgpu/kernels"
)

// Five steps of torch.optim.Adam and AdamW after clip_grad_norm_, with a moving average.
func TestAdamGolden(t *testing.T) {
	type attributes struct {
		Steps          int
		LR, Beta1, Eps float64
		Beta2          float64
		WeightDecay    float64 `json:"weight_decay"`
		Decoupled      bool
		MaxNorm        float64 `json:"max_norm"`
		EMADecay       float64 `json:"ema_decay"`
	}
	for _, spec := range tiles {
		for _, r := range []kernels.Precision{kernels.FP32, kernels.FP64} {
			withKernels(t, spec, r, func(h *harness) {
				golden(t, "ops.safetensors", "adam", func(name string, c attributes, values func(string) []float64) {
					weights := values("p0")
					n := len(weights)
					zero := make([]float64, n)
					p, m, v, ema := h.reals(weights), h.reals(zero), h.reals(zero), h.reals(weights)
					norm, scratch := h.poison(1), h.poison(int(kernels.GradNormScratch(int64(n))))
					a := kernels.Adam{N: int64(n), Beta1: c.Beta1, Beta2: c.Beta2, Epsilon: c.Eps, WeightDecay: c.WeightDecay,
						MaxNorm: c.MaxNorm, Decoupled: c.Decoupled}
					for k := range c.Steps {
						g := h.reals(values("g")[k*n : (k+1)*n])
						h.GradNorm(int64(n), norm, scratch, g)
						h.Adam(a, p, m, v, ema, 0, g, norm, h.state(kernels.StepState{LearningRate: c.LR, EMADecay: c.EMADecay,
							Correction1: 1 - math.Pow(c.Beta1, float64(k+1)), Correction2: 1 - math.Pow(c.Beta2, float64(k+1))}))
						near(t, name+" norm", h.read(norm, 1), values("norm")[k:k+1], bound(r))
						near(t, name+" p", h.read(p, n), values("p")[k*n:(k+1)*n], bound(r))
						near(t, name+" m", h.read(m, n), values("m")[k*n:(k+1)*n], bound(r))
						near(t, name+" v", h.read(v, n), values("v")[k*n:(k+1)*n], bound(r))
						near(t, name+" ema", h.read(ema, n), values("ema")[k*n:(k+1)*n], bound(r))
					}
				})
			})
		}
	}
}

// The gaps between tensors stay 0, bit by bit; a gradient that is not a number is seen in the norm and in every weight.
func TestAdamZerosAndNaN(t *testing.T) {
	const n = 1000
	for _, spec := range tiles {
		withKernels(t, spec, kernels.FP32, func(h *harness) {
			state := h.state(kernels.StepState{LearningRate: 1e-3, EMADecay: 0.99, Correction1: 0.1, Correction2: 0.001})
			step := func(g []float64) (weights, gradNorm []float64) {
				zero := make([]float64, n)
				p, m, v, ema, gp := h.reals(zero), h.reals(zero), h.reals(zero), h.reals(zero), h.reals(g)
				norm, scratch := h.poison(1), h.poison(1)
				h.GradNorm(n, norm, scratch, gp)
				h.Adam(kernels.Adam{N: n, Beta1: 0.9, Beta2: 0.999, Epsilon: 1e-8, WeightDecay: 0.1, MaxNorm: 1}, p, m, v, ema, 0, gp, norm, state)
				for _, x := range append(append(h.read(m, n), h.read(v, n)...), h.read(ema, n)...) {
					if x != 0 && g[0] == 0 {
						t.Errorf("%s: zeros became %g", spec, x)
						return nil, nil
					}
				}
				return h.read(p, n), h.read(norm, 1)
			}
			g := make([]float64, n)
			weights, norm := step(g)
			for i, x := range append(weights, norm...) {
				if x != 0 {
					t.Errorf("%s: zero %d became %g", spec, i, x)
					return
				}
			}
			g[0], g[n-1] = 1, math.NaN()
			weights, norm = step(g)
			for i, x := range append(weights, norm...) {
				if !math.IsNaN(x) {
					t.Errorf("%s: element %d is %g after a gradient that is not a number", spec, i, x)
					return
				}
			}
		})
	}
}
