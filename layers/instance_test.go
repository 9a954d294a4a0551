package layers

import (
	"errors"
	"math"
	"slices"
	"strings"
	"testing"

	"ddgpu/gpu"
	"ddgpu/gpu/driver"
	"ddgpu/kernels"
)

func sameBits(a, b []float64) bool {
	return slices.EqualFunc(a, b, func(x, y float64) bool { return math.Float64bits(x) == math.Float64bits(y) })
}

func hasNaN(v []float64) bool { return slices.ContainsFunc(v, math.IsNaN) }

// unets are the small network with all kinds of nodes, with time added and with scale and shift.
func unets(t testing.TB) []*Graph {
	var graphs []*Graph
	for _, shift := range []string{"default", "scale_shift"} {
		c := everything()
		c.ResnetTimeScaleShift = shift
		g, err := NewUNet2D(c)
		if err != nil {
			t.Fatal(err)
		}
		graphs = append(graphs, g)
	}
	return graphs
}

// TestOverlapKeepsBits runs a network with overlapping memory, and with memory of its own for each tensor that turns to NaN after the last
// step for which the plan has it.
func TestOverlapKeepsBits(t *testing.T) {
	r := seeded(t)
	onHost(t, kernels.FP32, func(m *machine) {
		for _, g := range unets(t) {
			d := randomData(r, g, 3)
			for _, o := range []PlanOptions{{}, {Train: true}, {Train: true, Dropout: true, InputGradient: true, Shards: shards(4, 1)},
				{Train: true, Dropout: true, InputGradient: true, Recompute: true}, {Train: true, Recompute: true}} {
				shared := newTrial(m, g, d, o)
				o.NoOverlap = true
				apart := newTrial(m, g, d, o)
				dead := make([]bool, len(apart.plan.storages))
				apart.instance.after = func(k int, backward bool) {
					step := k
					if backward {
						step = apart.plan.steps - 1 - k
					}
					m.sync()
					for s, storage := range apart.plan.storages {
						if storage.last <= step && !dead[s] {
							apart.poison(slot(s))
							dead[s] = true
						}
					}
				}
				y := shared.forward()
				if hasNaN(y) || !sameBits(y, apart.forward()) {
					t.Errorf("%+v: the output has other bits without overlap", o)
				}
				if o.Train {
					want, wantDX := shared.backward()
					got, gotDX := apart.backward()
					for s := range want {
						for i := range want[s] {
							if hasNaN(want[s][i].Values) || !sameBits(want[s][i].Values, got[s][i].Values) {
								t.Errorf("%+v: shard %d of the gradient of %s has other bits without overlap", o, s, want[s][i].Name)
							}
						}
					}
					if hasNaN(wantDX) || !sameBits(wantDX, gotDX) {
						t.Errorf("%+v: the gradient of the input has other bits without overlap", o)
					}
				}
				if n := len(dead); !slices.Contains(dead, true) || n < 100 {
					t.Errorf("%+v: nothing was given up of %d storages", o, n)
				}
				shared.close()
				apart.close()
			}
		}
	})
}

// TestBatchIndependence: an image has the same output, and a shard the same gradient, whatever else is in the launch.
func TestBatchIndependence(t *testing.T) {
	r := seeded(t)
	onHost(t, kernels.FP32, func(m *machine) {
		for _, g := range unets(t) {
			d := randomData(r, g, 5)
			options := PlanOptions{Train: true, Dropout: true, InputGradient: true, Shards: shards(4, 2)} // two, two, one and no images
			all := newTrial(m, g, d, options)
			y := all.forward()
			parts, dx := all.backward()
			for s, first := range []int{0, 2, 4} {
				last := min(first+2, d.images)
				options.Shards = shards(1, last-first)
				one := newTrial(m, g, d.part(first, last), options)
				in, out := len(d.x)/d.images, len(d.dy)/d.images
				if !sameBits(one.forward(), y[first*out:last*out]) {
					t.Errorf("images %d to %d have other outputs alone", first, last)
				}
				alone, aloneDX := one.backward()
				for i, p := range alone[0] {
					if !sameBits(p.Values, parts[s][i].Values) {
						t.Errorf("shard %d alone has another gradient of %s", s, p.Name)
					}
				}
				if !sameBits(aloneDX, dx[first*in:last*in]) {
					t.Errorf("images %d to %d have other gradients alone", first, last)
				}
				// Without Train, and without a gradient, the output is the same.
				draw := newTrial(m, g, d.part(first, last), PlanOptions{Dropout: true})
				if !sameBits(draw.forward(), y[first*out:last*out]) {
					t.Errorf("images %d to %d have other outputs without Train", first, last)
				}
				draw.close()
				one.close()
			}
			for _, p := range parts[3] {
				if slices.ContainsFunc(p.Values, func(x float64) bool { return x != 0 }) {
					t.Errorf("an empty shard has a gradient of %s", p.Name)
				}
			}
			all.close()
		}
	})
}

// TestCapture runs a pass as a graph, in which nothing may be allocated or waited for.
func TestCapture(t *testing.T) {
	r := seeded(t)
	onHost(t, kernels.FP32, func(m *machine) {
		g := unets(t)[0]
		tr := newTrial(m, g, randomData(r, g, 2), PlanOptions{Train: true, Dropout: true})
		y := tr.forward()
		want, _ := tr.backward()
		m.write(tr.partial, make([]float64, g.ArenaElements))
		captured, err := m.queue.Stream().Capture(func() error {
			tr.instance.Forward(m.queue, Weights{Arena: tr.w}, tr.state, tr.offset)
			tr.instance.Backward(m.queue, Weights{Arena: tr.w}, tr.partial, tr.state, tr.offset)
			return m.queue.Err()
		})
		m.check(err)
		tr.poison(tr.plan.y)
		m.check(captured.Launch(m.queue.Stream()))
		m.sync()
		if !sameBits(m.read(tr.instance.Y, int64(len(y))), y) {
			t.Error("the captured pass has another output")
		}
		for i, p := range g.ToPublic(m.read(tr.partial, g.ArenaElements)) {
			if !sameBits(p.Values, want[0][i].Values) {
				t.Errorf("the captured pass has another gradient of %s", p.Name)
			}
		}
		m.check(captured.Close())
		tr.close()
	})
}

func TestInstanceErrors(t *testing.T) {
	g := unets(t)[0]
	onHost(t, kernels.FP32, func(m *machine) {
		double, err := g.Plan(PlanOptions{Batch: 1, Precision: kernels.FP64})
		m.check(err)
		if _, err := double.Instantiate(m.device, m.library); err == nil || !strings.Contains(err.Error(), "a plan in fp64") {
			t.Errorf("error is %v", err)
		}
		huge, err := g.Plan(PlanOptions{Batch: 1 << 23})
		m.check(err)
		free, _, err := m.device.MemInfo()
		m.check(err)
		var memory *gpu.MemoryError
		if _, err := huge.Instantiate(m.device, m.library); !errors.As(err, &memory) || !errors.Is(err, driver.OutOfMemory) ||
			memory.What != "activations (batch 8388608)" || memory.Bytes != huge.Activations {
			t.Errorf("error is %v", err)
		}
		if after, _, err := m.device.MemInfo(); err != nil || after != free {
			t.Errorf("%d bytes are free after a failed allocation, %d before: %v", after, free, err)
		}
		tr := newTrial(m, g, randomData(seeded(t), g, 1), PlanOptions{})
		q := m.library.NewQueue(m.queue.Stream())
		tr.instance.Backward(q, Weights{Arena: tr.w}, tr.w, 0, 0)
		if err := q.Err(); err == nil || !strings.Contains(err.Error(), "without Train") {
			t.Errorf("error is %v", err)
		}
		tr.close()
	})
}
