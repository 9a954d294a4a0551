package kernels_test

import (
	"math"
	"testing"

	"ddgpu/gpu"
	"ddgpu/kernels"
)

// diffusers' get_timestep_embedding, computed in float64.
func TestTimestepEmbeddingGolden(t *testing.T) {
	type attributes struct {
		Dim       int
		Flip      bool    `json:"flip_sin_to_cos"`
		FreqShift float64 `json:"freq_shift"`
		Scale     float64
		MaxPeriod float64 `json:"max_period"`
	}
	for _, spec := range tiles {
		for r, most := range map[kernels.Precision]float64{kernels.FP32: 1e-6, kernels.FP64: 1e-12} {
			withKernels(t, spec, r, func(h *harness) {
				golden(t, "ops.safetensors", "timestep_embedding", func(name string, c attributes, values func(string) []float64) {
					times, want := values("t"), values("y")
					for i := range times {
						times[i] *= c.Scale
					}
					y := h.poison(len(want))
					h.TimestepEmbedding(len(times), c.Dim, c.Flip, y, h.reals(times),
						h.reals(kernels.TimestepFrequencies(c.Dim, c.FreqShift, c.MaxPeriod)))
					for i, got := range h.read(y, len(want)) {
						if !(math.Abs(got-want[i]) <= most) {
							t.Errorf("%s %v %s: element %d is %g, want %g", spec, r, name, i, got, want[i])
						}
					}
				})
			})
		}
	}
}

// A label that is no class makes its row NaN and no other, and gives no gradient.
func TestEmbeddingOfUnknownLabel(t *testing.T) {
	const c, classes = 37, 3
	labels := []int32{0, -1, 2, 3, 1, math.MaxInt32, math.MinInt32}
	n := len(labels)
	for _, spec := range tiles {
		withKernels(t, spec, kernels.FP32, func(h *harness) {
			ones := make([]float64, n*c)
			for i := range ones {
				ones[i] = 1
			}
			x, table, at := h.reals(ones), h.reals(ones[:classes*c]), h.bytes(gpu.Bytes(labels))
			y, partial := h.poison(n*c), h.poison(classes*c)
			h.EmbeddingForward(n, c, classes, y, x, table, at)
			for i, v := range h.read(y, n*c) {
				if known := labels[i/c] >= 0 && labels[i/c] < classes; known && v != 2 || !known && !math.IsNaN(v) {
					t.Errorf("%s: label %d gives %g", spec, labels[i/c], v)
					return
				}
			}
			h.EmbeddingBackward(kernels.Shards{Count: 1, Size: n}, n, c, classes, partial, classes*c, x, at)
			for i, v := range h.read(partial, classes*c) {
				if v != 1 {
					t.Errorf("%s: the gradient of class %d is %g", spec, i/c, v)
					return
				}
			}
		})
	}
}

func TestLaunchersRefuse(t *testing.T) {
	silu := kernels.Norm{N: 1, HW: 1, C: 1, Groups: 1, SiLU: true}
	for want, f := range map[string]func(q *kernels.Queue){
		"dropout 0 with probability 1: want a layer below 128 and a probability in [0, 1)": func(q *kernels.Queue) {
			q.GroupNormForward(silu, kernels.Dropout{P: 1, State: 1}, 0, 0, 0, 0, 0, 0, 0, 0, 0)
		},
		"dropout 128 with probability 0.5: want a layer below 128 and a probability in [0, 1)": func(q *kernels.Queue) {
			q.GroupNormBackward(silu, kernels.Dropout{Site: 128, P: 0.5, State: 1}, 0, kernels.Rows{}, 0, kernels.PixelSums{}, 0, 0, 0, 0, 0, 0, 0)
		},
		"dropout 3 after a group norm without SiLU": func(q *kernels.Queue) {
			q.GroupNormForward(kernels.Norm{N: 1, HW: 1, C: 1, Groups: 1}, kernels.Dropout{Site: 3, State: 1}, 0, 0, 0, 0, 0, 0, 0, 0, 0)
		},
		"dropout 3: images of 2147483648 elements are beyond 32 bits": func(q *kernels.Queue) {
			q.GroupNormBackward(kernels.Norm{N: 1, HW: 1 << 30, C: 2, Groups: 1, SiLU: true}, kernels.Dropout{Site: 3, State: 1}, 0, kernels.Rows{}, 0, kernels.PixelSums{}, 0, 0, 0, 0, 0, 0, 0)
		},
		"kernel sample_start: images of 2147483648 elements are beyond 32 bits": func(q *kernels.Queue) { q.SampleStart(1, 1<<31, 0, 0, 0) },
		"loss: unknown objective 3": func(q *kernels.Queue) {
			q.Loss(kernels.Noise{N: 1, H: 1, W: 1, C: 1, T: 1}, 3, 0, 0, 0, 0, 0, 0, 1)
		},
		"loss of images of 0 elements: want 1 to 2³¹ − 1": func(q *kernels.Queue) {
			q.Loss(kernels.Noise{N: 1, T: 1}, kernels.Eps, 0, 0, 0, 0, 0, 0, 1)
		},
		"a time embedding of 1 values: want 2 or more": func(q *kernels.Queue) { q.TimestepEmbedding(1, 1, false, 0, 0, 0) },
		"adam with β1 0.9, β2 1, ε 1e-08: want β in [0, 1) and a positive ε": func(q *kernels.Queue) {
			q.Adam(kernels.Adam{N: 1, Beta1: 0.9, Beta2: 1, Epsilon: 1e-8}, 0, 0, 0, 0, 0, 0, 0, 0)
		},
	} {
		withKernels(t, "host", kernels.FP32, func(h *harness) {
			f(h.Queue)
			if err := h.Err(); err == nil || err.Error() != want {
				t.Errorf("got %v, want %s", err, want)
			}
		})
	}
}
