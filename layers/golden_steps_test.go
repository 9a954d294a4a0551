package layers

import (
	"encoding/json"
	"fmt"
	"math"
	"slices"
	"testing"

	"ddgpu/gpu"
	"ddgpu/kernels"
)

// TestGoldenSteps takes ten steps of Adam with clipping and an average of the weights, and compares losses, gradient norms and the weights
// at the end with PyTorch's.
func TestGoldenSteps(t *testing.T) {
	for _, real := range []kernels.Precision{kernels.FP32, kernels.FP64} {
		t.Run(fmt.Sprint(real), func(t *testing.T) {
			bound := 1e-4
			if real == kernels.FP64 {
				bound = 1e-9
			}
			testGoldenSteps(t, openGolden(t, "unet_a.safetensors"), real, bound)
		})
	}
}

func testGoldenSteps(t *testing.T, file golden, real kernels.Precision, bound float64) {
	var steps struct {
		Count                 int
		LR, Beta1, Beta2, Eps float64
		MaxNorm               float64 `json:"max_norm"`
		WeightDecay           float64 `json:"weight_decay"`
		Decay                 float64 `json:"ema_decay"`
	}
	if err := json.Unmarshal([]byte(file.file.Metadata["steps"]), &steps); err != nil {
		t.Fatal(err)
	}
	graph, weights, zero := file.network(t, file.file.Metadata["config"])
	shape, times := file.read("steps.t")
	batch := shape[1]
	x, target := file.batches("steps.x"), file.batches("steps.target")
	_, losses := file.read("steps.loss")
	_, norms := file.read("steps.grad_norm")

	onHost(t, real, func(m *machine) {
		plan, err := graph.Plan(PlanOptions{Batch: batch, Train: true, Precision: real})
		m.check(err)
		i, err := plan.Instantiate(m.device, m.library)
		m.check(err)
		n := graph.ArenaElements
		zeros := make([]float64, n)
		w, average, gradient := m.upload(weights), m.upload(weights), m.upload(zeros)
		m1, m2, gradNorm := m.upload(zeros), m.upload(zeros), m.poisoned(1)
		scratch := m.poisoned(kernels.GradNormScratch(n))
		state, err := m.device.Alloc("state", kernels.StepStateSize)
		m.check(err)
		adam := kernels.Adam{N: n, Beta1: steps.Beta1, Beta2: steps.Beta2, Epsilon: steps.Eps, WeightDecay: steps.WeightDecay, MaxNorm: steps.MaxNorm}
		for k := range steps.Count {
			at := float64(k + 1)
			m.check(m.device.Write(state, gpu.Bytes([]kernels.StepState{{
				LearningRate: steps.LR, EMADecay: steps.Decay,
				Correction1: 1 - math.Pow(steps.Beta1, at), Correction2: 1 - math.Pow(steps.Beta2, at),
			}})))
			m.write(i.X, x[k])
			m.write(i.Time, times[k*batch:(k+1)*batch])
			i.Forward(m.queue, Weights{Arena: w}, 0, 0)
			m.sync()
			loss, dy := squareLoss(m.read(i.Y, int64(len(target[k]))), target[k])
			m.write(i.DY, dy)
			i.Backward(m.queue, Weights{Arena: w}, gradient, 0, 0)
			m.queue.GradNorm(n, gradNorm, scratch, gradient)
			m.queue.Adam(adam, w, m1, m2, average, 0, gradient, gradNorm, state)
			m.sync()
			got := m.read(gradNorm, 1)[0]
			if e := relative([]float64{loss, got}, []float64{losses[k], norms[k]}); !(e <= bound) {
				t.Errorf("step %d: loss %g and gradient norm %g, want %g and %g", k, loss, got, losses[k], norms[k])
			}
		}
		for prefix, arena := range map[string]gpu.Ptr{"steps.param.": w, "steps.ema.": average} {
			for _, p := range graph.ToPublic(m.read(arena, n)) {
				if slices.Contains(zero, p.Name) {
					continue // its gradient is rounding, which Adam scales up; no output depends on it
				}
				_, want := file.read(prefix + p.Name)
				if e := relative(p.Values, want); !(e <= bound) {
					t.Errorf("%s%s differs by %.2g, allowed is %.2g", prefix, p.Name, e, bound)
				}
			}
		}
	})
}

// batches reads a tensor [K][N][C][H][W] as K batches [N][H][W][C].
func (g golden) batches(name string) [][]float64 {
	g.t.Helper()
	shape, v := g.read(name)
	each := len(v) / shape[0]
	batches := make([][]float64, shape[0])
	for k := range batches {
		batches[k] = toNHWC(shape[1:], v[k*each:(k+1)*each])
	}
	return batches
}

// squareLoss is the mean of (y − target)² and its gradient.
func squareLoss(y, target []float64) (loss float64, dy []float64) {
	dy = make([]float64, len(y))
	for i := range y {
		d := y[i] - target[i]
		loss += d * d / float64(len(y))
		dy[i] = 2 * d / float64(len(y))
	}
	return loss, dy
}
