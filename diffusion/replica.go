package diffusion

import (
	"errors"

	"ddgpu/diffusion/data"
	"ddgpu/diffusion/schedule"
	"ddgpu/gpu"
	"ddgpu/kernels"
	"ddgpu/layers"
)

// replica is one device's share of a Trainer. Its methods run on the device's thread.
type replica struct {
	pool
	config  *Config
	graph   *layers.Graph
	library *kernels.Library
	stream  *gpu.Stream // computes
	copies  *gpu.Stream // brings the images of the next step
	queue   *kernels.Queue

	// Flat arenas of graph.ArenaElements values.
	weights, moment1, moment2, ema gpu.Ptr
	matrices                       gpu.Ptr   // the weights rounded, or 0
	partial                        gpu.Ptr   // one arena for each shard of a launch
	nodes                          []gpu.Ptr // pending nodes of the tree over micro-batches, one after another; the last becomes the gradient
	exchange                       exchange

	roots, lossOf, scratch gpu.Ptr

	slots     [StepsAhead]slot
	first     int // image of the global batch that the device's part begins with
	instances []*layers.Instance
	micro     []microBatch
	trace     *tracing // of the step that is queued, or nil
}

// microBatch is one forward, backward and tree.
type microBatch struct {
	cut
	instance *layers.Instance // nil when it has no images
}

func newReplica(d *gpu.Device, c *Config, graph *layers.Graph, noise *schedule.Schedule, devices int) (*replica, error) {
	r := &replica{pool: pool{device: d, precision: c.precision()}, config: c, graph: graph}
	if err := r.build(noise, devices); err != nil {
		return nil, errors.Join(err, r.close())
	}
	return r, nil
}

func (r *replica) build(noise *schedule.Schedule, devices int) (err error) {
	d := r.device
	if r.library, err = kernels.Load(d, r.precision); err != nil {
		return err
	}
	if r.stream, err = d.NewStream(); err != nil {
		return err
	}
	if r.copies, err = d.NewStream(); err != nil {
		return err
	}
	r.queue = r.library.NewQueue(r.stream)

	arena := r.graph.ArenaElements
	r.nodes = make([]gpu.Ptr, r.config.Train.treeLevels()+1)
	part := r.config.Train.cut(devices, d.Index, 0)
	first, count := r.config.Train.local(devices, d.Index)
	r.first = first
	type reservation struct {
		at    *gpu.Ptr
		what  string
		count int64
	}
	reservations := []reservation{
		{&r.weights, "the parameters", arena}, {&r.moment1, "Adam's first moment", arena}, {&r.moment2, "Adam's second moment", arena},
		{&r.ema, "the averaged weights", arena}, {&r.partial, "the gradients of shards", arena * int64(part.Shards.Count)},
		{&r.roots, "the noise schedule", int64(2 * noise.T())}, {&r.lossOf, "the losses", int64(max(part.Count, 1))},
		{&r.scratch, "the gradient's norm", kernels.GradNormScratch(arena)}, {&r.nodes[0], "the gradients", arena * int64(len(r.nodes))},
	}
	if r.matrices, err = r.pool.matrices(arena); err != nil {
		return err
	}
	for _, v := range reservations {
		if *v.at, err = r.sums(v.what, v.count); err != nil {
			return err
		}
	}
	for i := range r.nodes {
		r.nodes[i] = r.at(r.nodes[0], int64(i)*arena)
	}
	for i := range r.slots {
		if err = r.slots[i].build(&r.pool, count, r.config.imageShape().Bytes()); err != nil {
			return err
		}
	}
	if err = r.exchange.build(&r.pool, arena, devices); err != nil {
		return err
	}
	if err = d.Write(r.roots, r.precision.AccBytes(noise.Roots())); err != nil {
		return err
	}
	for _, zero := range []gpu.Ptr{r.moment1, r.moment2} {
		if err = r.stream.Zero(zero, arena*r.precision.AccSize()); err != nil {
			return err
		}
	}
	// What lies between the tensors of a shard's gradient is read by the tree and must be a number.
	if err = r.stream.Zero(r.partial, arena*int64(part.Shards.Count)*r.precision.AccSize()); err != nil {
		return err
	}
	if err = r.stream.Sync(); err != nil {
		return err
	}
	return r.capture(devices)
}

func (c *Config) imageShape() data.Shape {
	return data.Shape{H: c.Model.SampleSize.H, W: c.Model.SampleSize.W, C: c.Model.InChannels}
}

// capture lays out the micro-batches and records the launches of a step, once for each slot.
func (r *replica) capture(devices int) error {
	byCount := map[int]*layers.Instance{}
	for m := range r.config.Train.MicroBatches {
		b := microBatch{cut: r.config.Train.cut(devices, r.device.Index, m)}
		if b.Count > 0 && byCount[b.Count] == nil {
			plan, err := r.graph.Plan(r.config.trainPlan(b.cut))
			if err != nil {
				return err
			}
			instance, err := plan.Instantiate(r.device, r.library)
			if err != nil {
				return err
			}
			instance.Watch(r.begin, r.end)
			byCount[b.Count] = instance
			r.instances = append(r.instances, instance)
		}
		b.instance = byCount[b.Count]
		r.micro = append(r.micro, b)
	}
	for i := range r.slots {
		s := &r.slots[i]
		parts := []func(*slot) error{r.gradient}
		if devices == 1 {
			parts = append(parts, r.update)
		}
		var err error
		if s.gradient, err = r.record(s, parts...); err != nil {
			return err
		}
		if devices > 1 {
			if s.update, err = r.record(s, r.update); err != nil {
				return err
			}
		}
	}
	return nil
}

// record captures parts of a step as one graph.
func (r *replica) record(s *slot, parts ...func(*slot) error) (*gpu.Graph, error) {
	return r.stream.Capture(func() error {
		for _, part := range parts {
			if err := part(s); err != nil {
				return err
			}
		}
		return r.queue.Err()
	})
}

// gradient queues the computation of the gradient of the device's part of a batch.
func (r *replica) gradient(s *slot) error {
	for m, b := range r.micro {
		if err := r.forwardBackward(s, b); err != nil {
			return err
		}
		r.beginOther("tree")
		r.addToTree(m, b.Shards.Count)
		r.end()
	}
	return r.queue.Err()
}

// update queues the update from the gradient of all devices, and the way of its result to the host.
func (r *replica) update(s *slot) error {
	o, n, g := r.config.Optimizer, r.lossAt(), r.gradientArena()
	norm := r.at(g, n+1)
	r.beginOther("norm")
	r.queue.GradNorm(n, norm, r.scratch, g)
	r.end()
	r.beginOther("update")
	r.queue.Adam(kernels.Adam{
		N: n, Beta1: o.Beta1, Beta2: o.Beta2, Epsilon: o.Epsilon, WeightDecay: o.WeightDecay, MaxNorm: o.MaxGradNorm, Decoupled: o.Name == "adamw",
	}, r.weights, r.moment1, r.moment2, r.ema, r.matrices, g, norm, s.state())
	r.end()
	if err := r.queue.Err(); err != nil {
		return err
	}
	r.beginOther("result")
	defer r.end()
	return r.stream.Download(s.result, r.at(g, n))
}

// resultValues is how many numbers a step's result has: the sum of the losses and, after it in the gradient's arena, the gradient's norm.
const resultValues = 2

// lossAt is where an arena of gradients holds the loss, so that the tree adds it up along with them: in the spare elements at its end.
func (r *replica) lossAt() int64 { return r.graph.ArenaElements - layers.SpareElements }

func (r *replica) gradientArena() gpu.Ptr { return r.nodes[len(r.nodes)-1] }

// at is the address of element i of reals.
func (r *replica) at(p gpu.Ptr, i int64) gpu.Ptr { return p.Offset(i * r.precision.AccSize()) }

// forwardBackward leaves each shard's gradient and sum of losses in r.partial:
// n ~ U{0 … T−1}, ε ~ N(0, I), x_n = √ᾱ_n x_0 + √(1 − ᾱ_n) ε, L = mean (f(x_n, n) − target)² ([DDPM] algorithm 1).
func (r *replica) forwardBackward(s *slot, b microBatch) error {
	arena := r.graph.ArenaElements
	if b.Count == 0 {
		return r.stream.Zero(r.partial, arena*int64(b.Shards.Count)*r.precision.AccSize())
	}
	q, x, state := r.queue, b.instance, s.state()
	offset := int64(b.First)
	images := s.image((b.First - r.first) * r.config.imageShape().Bytes())
	if r.graph.Classes > 0 {
		r.beginOther("labels")
		err := r.stream.Copy(x.Labels, s.labels(b.First-r.first), int64(b.Count)*4)
		r.end()
		if err != nil {
			return err
		}
	}
	noise := r.config.noise(b.Count, offset, r.config.Data.Flip)
	r.beginOther("noise")
	q.NoiseAdd(noise, x.X, x.Time, images, state, r.roots, r.config.timeScale())
	r.end()
	w := layers.Weights{Arena: r.weights, Matrices: r.matrices}
	x.Forward(q, w, state, offset)
	r.beginOther("loss")
	q.Loss(noise, r.config.objective(), x.DY, r.lossOf, x.Y, images, state, r.roots, 1/float64(r.config.Train.Batch))
	r.end()
	x.Backward(q, w, r.partial, state, offset)
	r.beginOther("loss")
	q.ShardSum(b.Shards, b.Count, 1, r.at(r.partial, r.lossAt()), arena, kernels.Rows{At: r.lossOf, Stride: 1})
	r.end()
	return q.Err()
}

// addToTree adds up the shards of micro-batch m and joins the sum with the pending nodes that it completes a subtree with: node j holds 2^j
// micro-batches, as a binary counter holds its bits.
func (r *replica) addToTree(m, shards int) {
	q, arena := r.queue, r.graph.ArenaElements
	level := 0
	for m>>level&1 == 1 {
		level++
	}
	last := r.gradientArena() // free until the last micro-batch
	if level == 0 {
		q.TreeSum(shards, arena, r.nodes[0], r.partial, arena)
		return
	}
	q.TreeSum(shards, arena, last, r.partial, arena)
	for j := range level {
		to := last
		if j == level-1 {
			to = r.nodes[level]
		}
		q.TreeSum(2, arena, to, r.nodes[j], int64(len(r.nodes)-1-j)*arena) // node j and the last
	}
}

// start queues a step up to the device's gradient, which on a single device is all of it. The slot's input is copied beside what the device
// computes for the step before.
func (r *replica) start(s *slot, batch data.Batch, state kernels.StepState) error {
	s.fill(batch, r.first, r.config.imageShape().Bytes(), state)
	r.trace.begin(r.copies, CopiesStream, layers.Launches{Layer: "input"})
	err := r.copies.Upload(s.input, s.host)
	r.end()
	if err != nil {
		return err
	}
	if err := r.copies.Record(s.copied); err != nil {
		return err
	}
	if err := r.stream.Wait(s.copied); err != nil {
		return err
	}
	if r.trace != nil {
		return r.gradient(s)
	}
	return s.gradient.Launch(r.stream)
}

// begin and end are around what is queued for a layer of the network, or for something else.
func (r *replica) begin(l layers.Launches) { r.trace.begin(r.stream, ComputeStream, l) }
func (r *replica) beginOther(what string)  { r.begin(layers.Launches{Layer: what}) }
func (r *replica) end()                    { r.trace.end() }

// finish queues what is left of a step once the gradients of all devices are added up.
func (r *replica) finish(s *slot) error {
	var err error
	switch {
	case r.trace != nil:
		err = r.update(s)
	case s.update != nil:
		err = s.update.Launch(r.stream)
	}
	if err != nil {
		return err
	}
	return r.stream.Record(s.done)
}

// result reads a slot's result, which must have come.
func (r *replica) result(s *slot) (loss, norm float64) {
	if r.precision == kernels.FP64 {
		v := gpu.Values[float64](s.result)
		return v[0], v[1]
	}
	v := gpu.Values[float32](s.result)
	return float64(v[0]), float64(v[1])
}

// settle waits for all that was queued.
func (r *replica) settle() error {
	if err := r.copies.Sync(); err != nil {
		return err
	}
	return r.stream.Sync()
}

// setWeights starts the weights and their average from an arena.
func (r *replica) setWeights(arena []float64) error {
	b := r.precision.AccBytes(arena)
	return errors.Join(r.device.Write(r.weights, b), r.device.Write(r.ema, b), r.roundWeights())
}

// roundWeights makes the copy of the weights that matrix products take; each update makes it again.
func (r *replica) roundWeights() error {
	if r.matrices == 0 {
		return nil
	}
	r.queue.Round(r.graph.ArenaElements, r.matrices, r.weights)
	return errors.Join(r.queue.Err(), r.stream.Sync())
}

func (r *replica) close() error {
	var errs []error
	if r.copies != nil {
		errs = append(errs, r.settle())
	}
	for i := range r.slots {
		errs = append(errs, r.slots[i].close())
	}
	for _, i := range r.instances {
		errs = append(errs, i.Close())
	}
	errs = append(errs, r.exchange.close(), r.free())
	for _, s := range []*gpu.Stream{r.copies, r.stream} {
		if s != nil {
			errs = append(errs, s.Close())
		}
	}
	if r.library != nil {
		errs = append(errs, r.library.Close())
	}
	return errors.Join(errs...)
}

// noise describes count images of the forward process, from a global index on.
func (c *Config) noise(count int, offset int64, flip bool) kernels.Noise {
	s := c.imageShape()
	return kernels.Noise{N: count, H: s.H, W: s.W, C: s.C, T: c.Schedule.Steps, Flip: flip, Offset: offset}
}

// timeScale times n is what the network is told of step n.
func (c *Config) timeScale() float64 {
	if c.Conditioning == "rescaled" {
		return 1000 / float64(c.Schedule.Steps)
	}
	return 1
}

func (c *Config) objective() kernels.Objective {
	switch c.Objective {
	case "x0":
		return kernels.X0
	case "v":
		return kernels.V
	}
	return kernels.Eps
}
