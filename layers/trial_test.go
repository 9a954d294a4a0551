package layers

import (
	"math"
	"math/rand/v2"
	"testing"

	"ddgpu/gpu"
	"ddgpu/kernels"
)

// data is what a pass reads: random weights, and for each image input, time, label and the gradient of the output.
type data struct {
	weights, x, times, dy []float64
	labels                []int32
	images                int
	seed                  uint64 // of the dropout layers
	offset                int64  // position of the first image
}

// seeded is a source of random numbers whose seed a failure tells.
func seeded(t testing.TB) *rand.Rand {
	seed := rand.Uint64()
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("the seed was %d", seed)
		}
	})
	return rand.New(rand.NewPCG(seed, 0))
}

func normals(r *rand.Rand, n int64) []float64 {
	v := make([]float64, n)
	for i := range v {
		v[i] = r.NormFloat64()
	}
	return v
}

// randomData has weights that keep activations near 1.
func randomData(r *rand.Rand, g *Graph, images int) data {
	d := data{weights: make([]float64, g.ArenaElements), images: images, seed: r.Uint64(), offset: 2}
	for _, p := range g.Params {
		scale, shift := 0.3, 0.0
		switch {
		case p.Init.Kind == Ones:
			shift = 1
		case p.Init.Kind == Uniform && len(p.Shape) > 1:
			scale = 1 / math.Sqrt(float64(p.Init.FanIn))
		}
		for e := range p.Elements {
			d.weights[p.Offset+e] = shift + scale*r.NormFloat64()
		}
	}
	d.x, d.dy = normals(r, int64(images)*g.In.Elements()), normals(r, int64(images)*g.Out.Elements())
	for range images {
		d.times = append(d.times, 1000*r.Float64())
		d.labels = append(d.labels, int32(r.IntN(max(g.Classes, 1))))
	}
	return d
}

// part is the images from first to last.
func (d data) part(first, last int) data {
	in, out := len(d.x)/d.images, len(d.dy)/d.images
	d.x, d.dy = d.x[first*in:last*in], d.dy[first*out:last*out]
	d.times, d.labels = d.times[first:last], d.labels[first:last]
	d.images, d.offset = last-first, d.offset+int64(first)
	return d
}

// trial is an instance with data.
type trial struct {
	*machine
	data
	graph    *Graph
	plan     *Plan
	instance *Instance
	w, state gpu.Ptr
	partial  gpu.Ptr
}

func newTrial(m *machine, g *Graph, d data, o PlanOptions) *trial {
	t := &trial{machine: m, data: d, graph: g}
	o.Batch, o.Precision = d.images, m.library.Precision()
	var err error
	t.plan, err = g.Plan(o)
	m.check(err)
	t.instance, err = t.plan.Instantiate(m.device, m.library)
	m.check(err)
	for s := range t.plan.storages {
		if t.plan.storages[s].constants == nil {
			t.poison(slot(s))
		}
	}
	m.write(t.instance.X, t.x)
	m.write(t.instance.Time, t.times)
	if g.Classes > 0 {
		m.check(m.device.Write(t.instance.Labels, gpu.Bytes(t.labels)))
	}
	t.w = m.upload(t.weights)
	t.state, err = m.device.Alloc("state", kernels.StepStateSize)
	m.check(err)
	m.check(m.device.Write(t.state, gpu.Bytes([]kernels.StepState{{Seed: t.seed, Step: 3, First: 5}})))
	if o.Train {
		m.write(t.instance.DY, t.dy)
		t.partial = m.poisoned(int64(t.plan.Options.Shards.Count) * g.ArenaElements)
	}
	return t
}

// poison fills a storage with bytes that are NaN.
func (t *trial) poison(s slot) {
	bytes := make([]byte, t.plan.storages[s].bytes)
	for i := range bytes {
		bytes[i] = 0xff
	}
	t.check(t.device.Write(t.instance.at[s], bytes))
}

func (t *trial) close() {
	t.check(t.instance.Close())
	for _, p := range []gpu.Ptr{t.w, t.state, t.partial} {
		if p != 0 {
			t.check(t.device.Free(p))
		}
	}
}

func (t *trial) forward() []float64 {
	t.instance.Forward(t.queue, Weights{Arena: t.w}, t.state, t.offset)
	t.sync()
	return t.read(t.instance.Y, int64(len(t.dy)))
}

// backward is the gradient of each shard by tensor, and that of the input, after a forward.
func (t *trial) backward() (shards [][]Tensor, dx []float64) {
	t.instance.Backward(t.queue, Weights{Arena: t.w}, t.partial, t.state, t.offset)
	t.sync()
	arena := t.graph.ArenaElements
	for s := range t.plan.Options.Shards.Count {
		shards = append(shards, t.graph.ToPublic(t.read(t.partial.Offset(int64(s)*arena*t.library.Precision().Size()), arena)))
	}
	if t.instance.DX != 0 {
		dx = t.read(t.instance.DX, int64(len(t.x)))
	}
	return shards, dx
}

// loss is Σ dy·y.
func (t *trial) loss() float64 {
	sum := 0.0
	for i, y := range t.forward() {
		sum += t.dy[i] * y
	}
	return sum
}

// slope is the derivative of the loss along a direction of what lies at p, by central differences.
func (t *trial) slope(p gpu.Ptr, at, direction []float64) float64 {
	h := 1e-4 / max(1, norm(direction))
	moved := make([]float64, len(at))
	loss := func(step float64) float64 {
		for i := range moved {
			moved[i] = at[i] + step*direction[i]
		}
		t.write(p, moved)
		return t.loss()
	}
	slope := (loss(h) - loss(-h)) / (2 * h)
	t.write(p, at)
	return slope
}
