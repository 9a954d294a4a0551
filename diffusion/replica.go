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
	stream  *gpu.Stream
	queue   *kernels.Queue

	// Flat arenas of graph.ArenaElements values.
	weights, moment1, moment2, ema gpu.Ptr
	partial                        gpu.Ptr   // one arena for each shard of a launch
	nodes                          []gpu.Ptr // pending nodes of the tree over micro-batches; the last becomes the gradient
	exchange                       exchange

	state, images, labels, roots, lossOf, normOf, scratch gpu.Ptr

	hostState, hostImages, hostLabels, hostResult []byte // pinned

	first     int // image of the global batch that images begins with
	instances []*layers.Instance
	micro     []microBatch
	updating  *gpu.Graph
	loss      float64 // sum over the batch, of the last update
	norm      float64
}

// microBatch is one launch of forward, backward and tree, captured.
type microBatch struct {
	cut
	instance *layers.Instance // nil when it has no images
	graph    *gpu.Graph
}

func newReplica(d *gpu.Device, c *Config, graph *layers.Graph, noise *schedule.Schedule, devices int) (*replica, error) {
	r := &replica{pool: pool{device: d, real: c.real()}, config: c, graph: graph}
	if err := r.build(noise, devices); err != nil {
		return nil, errors.Join(err, r.close())
	}
	return r, nil
}

func (r *replica) build(noise *schedule.Schedule, devices int) (err error) {
	d := r.device
	if r.library, err = kernels.Load(d, r.real); err != nil {
		return err
	}
	if r.stream, err = d.NewStream(); err != nil {
		return err
	}
	r.queue = r.library.NewQueue(r.stream)

	arena := r.graph.ArenaElements
	r.nodes = make([]gpu.Ptr, r.config.Train.treeLevels()+1)
	part := r.config.Train.cut(devices, d.Index, 0)
	first, count := r.config.Train.local(devices, d.Index)
	r.first = first
	imageBytes := int64(r.config.imageShape().Bytes())
	type reservation struct {
		at    *gpu.Ptr
		what  string
		reals int64
	}
	reservations := []reservation{
		{&r.weights, "the parameters", arena}, {&r.moment1, "Adam's first moment", arena}, {&r.moment2, "Adam's second moment", arena},
		{&r.ema, "the averaged weights", arena}, {&r.partial, "the gradients of shards", arena * int64(part.Shards.Count)},
		{&r.roots, "the noise schedule", int64(2 * noise.T())}, {&r.lossOf, "the losses", int64(max(part.Count, 1))}, {&r.normOf, "the gradient's norm", 1},
		{&r.scratch, "the gradient's norm", kernels.GradNormScratch(arena)},
	}
	for i := range r.nodes {
		reservations = append(reservations, reservation{&r.nodes[i], "the gradients", arena})
	}
	for _, v := range reservations {
		if *v.at, err = r.reals(v.what, v.reals); err != nil {
			return err
		}
	}
	for _, v := range []struct {
		at    *gpu.Ptr
		host  *[]byte
		what  string
		bytes int64
	}{
		{&r.state, &r.hostState, "the step's state", kernels.StepStateSize}, {&r.images, &r.hostImages, "images", int64(count) * imageBytes},
		{&r.labels, &r.hostLabels, "labels", int64(count) * 4},
	} {
		if *v.at, err = r.bytes(v.what, v.bytes); err != nil {
			return err
		}
		if *v.host, err = r.host(v.what, v.bytes); err != nil {
			return err
		}
	}
	if r.hostResult, err = r.host("the step's result", 2*r.real.Size()); err != nil {
		return err
	}
	if err = r.exchange.build(&r.pool, arena, devices); err != nil {
		return err
	}
	if err = d.Write(r.roots, r.real.Bytes(noise.Roots())); err != nil {
		return err
	}
	for _, zero := range []gpu.Ptr{r.moment1, r.moment2} {
		if err = r.stream.Zero(zero, arena*r.real.Size()); err != nil {
			return err
		}
	}
	// What lies between the tensors of a shard's gradient is read by the tree and must be a number.
	if err = r.stream.Zero(r.partial, arena*int64(part.Shards.Count)*r.real.Size()); err != nil {
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

// capture records the launches of each micro-batch, and of the update.
func (r *replica) capture(devices int) (err error) {
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
			byCount[b.Count] = instance
			r.instances = append(r.instances, instance)
		}
		b.instance = byCount[b.Count]
		b.graph, err = r.stream.Capture(func() error {
			if err := r.forwardBackward(b); err != nil {
				return err
			}
			r.addToTree(m, b.Shards.Count)
			return r.queue.Err()
		})
		if err != nil {
			return err
		}
		r.micro = append(r.micro, b)
	}
	r.updating, err = r.stream.Capture(func() error {
		o, n := r.config.Optimizer, r.lossAt()
		g := r.gradientArena()
		r.queue.GradNorm(n, r.normOf, r.scratch, g)
		r.queue.Adam(kernels.Adam{
			N: n, Beta1: o.Beta1, Beta2: o.Beta2, Epsilon: o.Epsilon, WeightDecay: o.WeightDecay, MaxNorm: o.MaxGradNorm, Decoupled: o.Name == "adamw",
		}, r.weights, r.moment1, r.moment2, r.ema, g, r.normOf, r.state)
		return r.queue.Err()
	})
	return err
}

// lossAt is where an arena of gradients holds the loss, so that the tree adds it up along with them: in the spare elements at its end.
func (r *replica) lossAt() int64 { return r.graph.ArenaElements - layers.SpareElements }

func (r *replica) gradientArena() gpu.Ptr { return r.nodes[len(r.nodes)-1] }

// at is the address of element i of reals.
func (r *replica) at(p gpu.Ptr, i int64) gpu.Ptr { return p.Offset(i * r.real.Size()) }

// forwardBackward leaves each shard's gradient and sum of losses in r.partial:
// n ~ U{0 … T−1}, ε ~ N(0, I), x_n = √ᾱ_n x_0 + √(1 − ᾱ_n) ε, L = mean (f(x_n, n) − target)² ([DDPM] algorithm 1).
func (r *replica) forwardBackward(b microBatch) error {
	arena := r.graph.ArenaElements
	if b.Count == 0 {
		return r.stream.Zero(r.partial, arena*int64(b.Shards.Count)*r.real.Size())
	}
	q, x := r.queue, b.instance
	offset := int64(b.First)
	images := r.images.Offset(int64(b.First-r.first) * int64(r.config.imageShape().Bytes()))
	if r.graph.Classes > 0 {
		if err := r.stream.Copy(x.Labels, r.labels.Offset(int64(b.First-r.first)*4), int64(b.Count)*4); err != nil {
			return err
		}
	}
	noise := r.config.noise(b.Count, offset, r.config.Data.Flip)
	q.NoiseAdd(noise, x.X, x.Time, images, r.state, r.roots, r.config.timeScale())
	x.Forward(q, r.weights, r.state, offset)
	q.Loss(noise, r.config.objective(), x.DY, r.lossOf, x.Y, images, r.state, r.roots, 1/float64(r.config.Train.Batch))
	x.Backward(q, r.weights, r.partial, r.state, offset)
	q.ShardSum(b.Shards, b.Count, 1, r.at(r.partial, r.lossAt()), arena, r.lossOf)
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
		q.Add(arena, to, r.nodes[j], last)
	}
}

// gradient computes the gradient of the device's part of a batch.
func (r *replica) gradient(batch data.Batch, state kernels.StepState) error {
	size := r.config.imageShape().Bytes()
	n := len(r.hostLabels) / 4
	copy(r.hostImages, batch.Images[r.first*size:])
	copy(gpu.Values[int32](r.hostLabels), batch.Labels[r.first:])
	copy(r.hostState, gpu.Bytes([]kernels.StepState{state}))
	err := errors.Join(
		r.stream.Upload(r.state, r.hostState), r.stream.Upload(r.images, r.hostImages[:n*size]), r.stream.Upload(r.labels, r.hostLabels[:n*4]))
	if err != nil {
		return err
	}
	for _, b := range r.micro {
		if err := b.graph.Launch(r.stream); err != nil {
			return err
		}
	}
	return nil
}

// update makes the update from the gradient of all devices, and waits for it.
func (r *replica) update() error {
	size := r.real.Size()
	if err := r.updating.Launch(r.stream); err != nil {
		return err
	}
	if err := r.stream.Download(r.hostResult[:size], r.at(r.gradientArena(), r.lossAt())); err != nil {
		return err
	}
	if err := r.stream.Download(r.hostResult[size:], r.normOf); err != nil {
		return err
	}
	if err := r.stream.Sync(); err != nil {
		return err
	}
	v := r.real.Values(r.hostResult)
	r.loss, r.norm = v[0], v[1]
	return nil
}

// setWeights starts the weights and their average from an arena.
func (r *replica) setWeights(arena []float64) error {
	b := r.real.Bytes(arena)
	return errors.Join(r.device.Write(r.weights, b), r.device.Write(r.ema, b))
}

func (r *replica) close() error {
	var errs []error
	if r.stream != nil {
		errs = append(errs, r.stream.Sync())
	}
	for _, b := range r.micro {
		errs = append(errs, b.graph.Close())
	}
	if r.updating != nil {
		errs = append(errs, r.updating.Close())
	}
	for _, i := range r.instances {
		errs = append(errs, i.Close())
	}
	errs = append(errs, r.exchange.close(), r.free())
	if r.stream != nil {
		errs = append(errs, r.stream.Close())
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
