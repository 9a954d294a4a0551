package kernels_test

import (
	"math"
	"slices"
	"testing"

	"ddgpu/diffusion/schedule"
	"ddgpu/kernels"
)

// moments are mean, variance, skewness and kurtosis.
func moments(v []float64) (mean, variance, skewness, kurtosis float64) {
	n := float64(len(v))
	for _, x := range v {
		mean += x / n
	}
	for _, x := range v {
		d := x - mean
		variance += d * d / n
		skewness += d * d * d / n
		kurtosis += d * d * d * d / n
	}
	return mean, variance, skewness / math.Pow(variance, 1.5), kurtosis / (variance * variance)
}

// within checks a statistic against its expectation: five standard deviations.
func within(t *testing.T, what string, got, want, deviation float64) {
	t.Helper()
	if !(math.Abs(got-want) <= 5*deviation) {
		t.Errorf("%s is %g, want %g ± %.2g", what, got, want, deviation)
	}
}

// correlation of a and b, both of mean 0 and variance 1.
func correlation(a, b []float64) float64 {
	var sum float64
	for i := range a {
		sum += a[i] * b[i]
	}
	return sum / float64(len(a))
}

func TestNormals(t *testing.T) {
	const n, perImage = 64, 1 << 14
	for _, spec := range tiles {
		withKernels(t, spec, kernels.FP32, func(h *harness) {
			draw := func(seed, first uint64) []float64 {
				x := h.poison(n * perImage)
				h.SampleStart(n, perImage, x, h.poison(n*perImage), h.state(kernels.StepState{Seed: seed, First: first}))
				return h.read(x, n*perImage)
			}
			z := draw(7, 0)
			count := float64(len(z))
			mean, variance, skewness, kurtosis := moments(z)
			within(t, "mean", mean, 0, math.Sqrt(1/count))
			within(t, "variance", variance, 1, math.Sqrt(2/count))
			within(t, "skewness", skewness, 0, math.Sqrt(6/count))
			within(t, "kurtosis", kurtosis, 3, math.Sqrt(24/count))
			for _, tail := range []float64{1, 2, 3, 4} {
				p, share := math.Erfc(tail/math.Sqrt2), 0.0
				for _, x := range z {
					if math.Abs(x) > tail {
						share += 1 / count
					}
				}
				within(t, "share of the tail", share, p, math.Sqrt(p*(1-p)/count))
			}
			for lag := 1; lag <= 4; lag++ {
				within(t, "correlation of neighbours", correlation(z[lag:], z[:len(z)-lag]), 0, math.Sqrt(1/count))
			}
			within(t, "correlation of images", correlation(z[perImage:], z[:len(z)-perImage]), 0, math.Sqrt(1/count))
			within(t, "correlation of seeds", correlation(z, draw(8, 0)), 0, math.Sqrt(1/count))
			within(t, "correlation of seeds beyond 32 bits", correlation(z, draw(7+1<<32, 0)), 0, math.Sqrt(1/count))
			within(t, "correlation of images beyond 32 bits", correlation(z, draw(7, 1<<32)), 0, math.Sqrt(1/count))
			if shifted := draw(7, 5); !slices.Equal(shifted[:(n-5)*perImage], z[5*perImage:]) {
				t.Error("the noise of an image depends on its place in the batch")
			}
		})
	}
}

// Both tile configurations draw the same bits.
func TestNormalsSameBits(t *testing.T) {
	const n, perImage = 3, 4099
	var first []float64
	for _, spec := range tiles {
		withKernels(t, spec, kernels.FP32, func(h *harness) {
			x := h.poison(n * perImage)
			h.SampleStart(n, perImage, x, h.poison(n*perImage), h.state(kernels.StepState{Seed: 3, First: 9}))
			z := h.read(x, n*perImage)
			if first == nil {
				first = z
			} else if !slices.Equal(z, first) {
				t.Error("the tile configurations draw other bits")
			}
		})
	}
}

// n is uniform, and half of the images are mirrored.
func TestTimesAndFlips(t *testing.T) {
	const n, steps = 100_000, 10
	withKernels(t, "host", kernels.FP32, func(h *harness) {
		roots := make([]float64, 2*steps)
		for i := range steps {
			roots[i] = 1 // x_n = x0
		}
		g := kernels.Noise{N: n, H: 1, W: 2, C: 1, T: steps, Flip: true}
		images := make([]byte, 2*n)
		for i := range n {
			images[2*i+1] = 255
		}
		xn, times := h.poison(2*n), h.poison(n)
		h.NoiseAdd(g, xn, times, h.bytes(images), h.state(kernels.StepState{Seed: 11, Step: 3}), h.reals(roots), 100)
		var counts [steps]float64
		for _, time := range h.read(times, n) {
			counts[int(time)/100]++
		}
		for i, c := range counts {
			within(t, "share of n = "+string(rune('0'+i)), c/n, 1.0/steps, math.Sqrt(0.1*0.9/n))
		}
		flipped := 0.0
		x := h.read(xn, 2*n)
		for i := range n {
			switch [2]float64{x[2*i], x[2*i+1]} {
			case [2]float64{-1, 1}:
			case [2]float64{1, -1}:
				flipped++
			default:
				t.Errorf("image %d is %v, %v", i, x[2*i], x[2*i+1])
				return
			}
		}
		within(t, "share of mirrored images", flipped/n, 0.5, math.Sqrt(0.25/n))
	})
}

// Images of variance 1 keep it: Var[x_n] = ᾱ + (1 − ᾱ). Noise multiplied by 1 − ᾱ without the root would give ᾱ + (1 − ᾱ)².
func TestVarianceOfNoisyImages(t *testing.T) {
	const n, side = 4096, 16
	s, err := schedule.New(schedule.Config{Name: "linear", Steps: 1000})
	if err != nil {
		t.Fatal(err)
	}
	withKernels(t, "host", kernels.FP32, func(h *harness) {
		g := kernels.Noise{N: n, H: side, W: side, C: 1, T: s.T()}
		images := make([]byte, n*side*side)
		stream := kernels.Stream{Seed: 1}
		for i := range images {
			if stream.Block(uint32(i))[0]&1 == 1 {
				images[i] = 255 // x0 is −1 or 1
			}
		}
		xn, times := h.poison(len(images)), h.poison(n)
		h.NoiseAdd(g, xn, times, h.bytes(images), h.state(kernels.StepState{Seed: 5, Step: 8}), h.reals(s.Roots()), 1)
		x, index := h.read(xn, len(images)), h.read(times, n)
		// By thirds of the schedule, since ends alone would have the variance 1 with the mistake, too.
		var parts [3][]float64
		for i, value := range index {
			third := int(value) * 3 / s.T()
			parts[third] = append(parts[third], x[i*side*side:(i+1)*side*side]...)
		}
		for _, part := range parts {
			_, variance, _, _ := moments(part)
			within(t, "Var[x_n]", variance, 1, math.Sqrt(2/float64(len(part))))
		}
	})
}

// TestDropoutShare drops a share of a normalisation's constant output.
func TestDropoutShare(t *testing.T) {
	const n, hw, c, p = 16, 1 << 9, 32, 0.1
	withKernels(t, "host", kernels.FP32, func(h *harness) {
		x, beta := make([]float64, n*hw*c), make([]float64, c)
		for i := range x {
			x[i] = float64(i % 3)
		}
		for i := range beta {
			beta[i] = 1
		}
		g := kernels.Norm{N: n, HW: hw, C: c, Groups: 4, Eps: 1e-5, SiLU: true}
		in, zero, one, stats := h.reals(x), h.reals(make([]float64, c)), h.reals(beta), h.poison(2*n*g.Groups)
		mask := func(site int, step uint64) []float64 {
			y := h.poison(len(x))
			d := kernels.Dropout{Site: site, P: p, State: h.state(kernels.StepState{Seed: 4, Step: step})}
			h.GroupNormForward(g, d, y, stats, in, zero, one, 0, 0, 0, 0)
			v := h.read(y, len(x))
			for i := range v {
				v[i] *= 1 + math.Exp(-1) // 1 where the norm is kept as it is
			}
			return v
		}
		y := mask(0, 0)
		mean, _, _, _ := moments(y)
		within(t, "mean of dropped ones", mean, 1, math.Sqrt(p/(1-p)/float64(len(y))))
		for what, other := range map[string][]float64{"site": mask(1, 0), "step": mask(0, 1)} {
			both := 0.0
			for i := range y {
				if y[i] == 0 && other[i] == 0 {
					both += 1 / float64(len(y))
				}
			}
			within(t, "share dropped also by another "+what, both, p*p, math.Sqrt(p*p/float64(len(y))))
		}
	})
}
