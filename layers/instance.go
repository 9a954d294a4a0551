package layers

import (
	"errors"
	"fmt"

	"ddgpu/gpu"
	"ddgpu/kernels"
)

// Instance is a plan with memory on a device. Its methods are called inside the device's Do.
type Instance struct {
	// X is the input [N][H][W][C], Time the N steps (as parameters are stored) that the images are at, Labels their N classes (int32; 0 without classes).
	X, Time, Labels gpu.Ptr
	// Y is the output. With Train, DY is where the caller puts its gradient before Backward, which leaves it as it is. With InputGradient, DX
	// is the gradient of X.
	Y, DY, DX gpu.Ptr

	plan   *Plan
	device *gpu.Device
	memory []gpu.Ptr // what Close frees
	at     []gpu.Ptr // of the plan's storages
	after  func(node int, backward bool)
	begin  func(l Launches)
	end    func()
}

// Launches is what a layer queues at once.
type Launches struct {
	Layer string // its name
	Kind  string // of operation: conv, group norm, …
	Pass  Pass
}

// Pass is what a layer computes.
type Pass string

// The passes. Again is a part of Forward that Backward runs once more, see PlanOptions.Recompute.
const (
	Forward  Pass = "forward"
	Backward Pass = "backward"
	Again    Pass = "again"
)

// Watch has begin called before each layer's launches are queued, and end after them, by Forward and Backward.
func (i *Instance) Watch(begin func(l Launches), end func()) { i.begin, i.end = begin, end }

// launch has a node queue its work.
func (i *Instance) launch(c *call, node int, b *binding, pass Pass) {
	n := i.plan.Graph.nodes[node]
	c.node = b
	if i.begin != nil {
		i.begin(Launches{n.name, n.op.kind(), pass})
		defer i.end()
	}
	if pass == Backward {
		n.op.backward(c)
	} else {
		n.op.forward(c)
	}
}

// Instantiate allocates the plan's memory on the device of a library. Nothing is allocated later.
func (p *Plan) Instantiate(d *gpu.Device, l *kernels.Library) (*Instance, error) {
	if l.Precision() != p.Options.Precision || l.Device() != d {
		return nil, fmt.Errorf("a plan in %v for device %d, kernels in %v for device %d", p.Options.Precision, d.Index, l.Precision(), l.Device().Index)
	}
	i := &Instance{plan: p, device: d, at: make([]gpu.Ptr, len(p.storages))}
	err := i.allocate()
	if err == nil {
		err = i.writeConstants()
	}
	if err != nil {
		return nil, errors.Join(err, i.Close())
	}
	address := func(s slot) gpu.Ptr {
		if s == none {
			return 0
		}
		return i.at[s]
	}
	i.X, i.Time, i.Labels = address(p.x), address(p.time), address(p.labels)
	i.Y, i.DY, i.DX = address(p.y), address(p.dy), address(p.dx)
	return i, nil
}

func (i *Instance) allocate() error {
	p := i.plan
	alloc := func(what string, bytes int64) (gpu.Ptr, error) {
		m, err := i.device.Alloc(fmt.Sprintf("%s (batch %d)", what, p.Options.Batch), bytes)
		if err == nil {
			i.memory = append(i.memory, m)
		}
		return m, err
	}
	for _, part := range []struct {
		what  string
		slots []slot
		bytes int64
	}{{"activations", p.activations, p.Activations}, {"workspace", p.scratch, p.Workspace}} {
		if part.bytes == 0 {
			continue
		}
		var base gpu.Ptr
		var err error
		if !p.Options.NoOverlap {
			if base, err = alloc(part.what, part.bytes); err != nil {
				return err
			}
		}
		for _, s := range part.slots {
			t := &p.storages[s]
			if !p.Options.NoOverlap {
				i.at[s] = base.Offset(t.offset)
			} else if i.at[s], err = alloc(part.what+" of "+t.name, t.bytes); err != nil {
				return err
			}
		}
	}
	return nil
}

func (i *Instance) writeConstants() error {
	for s, t := range i.plan.storages {
		if t.constants == nil {
			continue
		}
		if err := i.device.Write(i.at[s], i.plan.Options.Precision.AccBytes(t.constants)); err != nil {
			return err
		}
	}
	return nil
}

// Plan is what the instance was made from.
func (i *Instance) Plan() *Plan { return i.plan }

// Close frees the memory; work that uses it must have ended.
func (i *Instance) Close() error {
	var errs []error
	for _, p := range i.memory {
		errs = append(errs, i.device.Free(p))
	}
	i.memory = nil
	return errors.Join(errs...)
}

// Weights is where a network's parameters are: an arena of them, and one of the same layout in which those that go into matrix products are as
// activations are stored. Matrices is 0 where that is the same type: then the products take Arena.
type Weights struct{ Arena, Matrices gpu.Ptr }

// Forward queues the computation of Y from X, Time and Labels. state is a kernels.StepState and offset the position of
// the batch's first image after state.First, which dropout draws by; without it they are not read.
func (i *Instance) Forward(q *kernels.Queue, weights Weights, state gpu.Ptr, offset int64) {
	c := i.call(q, weights, 0, state, offset)
	for k := range i.plan.nodes {
		if i.plan.nodes[k].idle {
			continue
		}
		i.launch(&c, k, &i.plan.nodes[k], Forward)
		if i.after != nil {
			i.after(k, false)
		}
	}
}

// Backward queues the computation of each shard's gradient of the weights from DY, after a Forward with the same arguments. partial is
// Shards.Count arenas one after another; elements that belong to no tensor are not written, so it must be cleared once before they are read.
func (i *Instance) Backward(q *kernels.Queue, weights Weights, partial, state gpu.Ptr, offset int64) {
	if !i.plan.Options.Train {
		q.Fail(errors.New("a backward pass of a plan without Train"))
		return
	}
	c := i.call(q, weights, partial, state, offset)
	for k := len(i.plan.nodes) - 1; k >= 0; k-- {
		if !i.plan.back[k].backward {
			continue
		}
		for j, n := range i.plan.again[k].nodes {
			i.launch(&c, n, &i.plan.again[k].bindings[j], Again)
		}
		i.launch(&c, k, &i.plan.back[k], Backward)
		if i.after != nil {
			i.after(k, true)
		}
	}
	if rows := i.plan.Graph.rows; rows.width > 0 {
		if i.begin != nil {
			i.begin(Launches{"sums", "biases and norms", Backward})
			defer i.end()
		}
		at := partial.Offset(rows.first * c.precision().AccSize())
		q.ShardSum(c.shards, c.images, int(rows.width), at, c.stride(), kernels.Rows{At: i.at[i.plan.rows], Stride: int(rows.stride)})
	}
}

func (i *Instance) call(q *kernels.Queue, weights Weights, partial, state gpu.Ptr, offset int64) call {
	p := i.plan.Options.Precision
	if weights.Matrices == 0 {
		if p.Size() != p.AccSize() {
			q.Fail(fmt.Errorf("a network in %v without rounded weights", p))
		}
		weights.Matrices = weights.Arena
	}
	return call{i: i, q: q, images: i.plan.Options.Batch, shards: i.plan.Options.Shards, weights: weights, partial: partial, state: state, offset: offset}
}

// call is where everything lies for one node in one Forward or Backward.
type call struct {
	i              *Instance
	node           *binding
	q              *kernels.Queue
	images         int
	shards         kernels.Shards
	weights        Weights
	partial, state gpu.Ptr
	offset         int64
}

func (c *call) address(s slot) gpu.Ptr {
	if s == none {
		return 0
	}
	return c.i.at[s]
}

func (c *call) in(j int) gpu.Ptr      { return c.address(c.node.in[j]) }
func (c *call) out() gpu.Ptr          { return c.address(c.node.out[0]) }
func (c *call) kept(j int) gpu.Ptr    { return c.address(c.node.kept[j]) }
func (c *call) scratch(j int) gpu.Ptr { return c.address(c.node.scratch[j]) }
func (c *call) constants() gpu.Ptr    { return c.address(c.node.constants) }
func (c *call) moments() gpu.Ptr      { return c.address(c.node.moments) }
func (c *call) before() gpu.Ptr       { return c.address(c.node.before) }
func (c *call) segments() gpu.Ptr     { return c.address(c.node.segments) }

// dIn and dOut are the gradients of an input and of the output; dIn is 0 where nobody wants it.
func (c *call) dIn(j int) gpu.Ptr { return c.address(c.node.dIn[j]) }
func (c *call) dOut() gpu.Ptr     { return c.address(c.node.dOut) }

// prior is a gradient of input 0 to add to that which backward computes, in the same place, or 0.
func (c *call) prior() gpu.Ptr { return c.address(c.node.prior) }

// pixelSums is where a group norm leaves the sums over the pixels of its input's gradient, for the convolution that made the input.
func (c *call) pixelSums() kernels.PixelSums {
	if c.node.sumsFor == 0 {
		return kernels.PixelSums{}
	}
	o := c.i.plan.Graph.nodes[c.node.sumsFor-1].op.(conv)
	return kernels.PixelSums{Sum: c.row(o.bias), Rounded: c.address(c.node.rounded)}
}

// term is one of the gradients that a fan-out adds up.
func (c *call) term(j int) gpu.Ptr { return c.address(c.node.terms[j]) }

// weight and gradient are a parameter's place in the weights, and in the first shard's gradients; 0 for parameter −1. matrix is its place among
// those that matrix products take.
func (c *call) weight(param int) gpu.Ptr {
	return c.at(c.weights.Arena, param, c.precision().AccSize())
}
func (c *call) gradient(param int) gpu.Ptr { return c.at(c.partial, param, c.precision().AccSize()) }
func (c *call) matrix(param int) gpu.Ptr {
	return c.at(c.weights.Matrices, param, c.precision().Size())
}

// row is where backward leaves, in each image's row of sums, what is summed to a parameter's gradient: one that is marked so. The columns of γ
// and β of a group norm are neighbours. At is 0 for parameter −1.
func (c *call) row(param int) kernels.Rows {
	g := c.i.plan.Graph
	if param < 0 {
		return kernels.Rows{}
	}
	column := g.Params[param].Offset - g.rows.first
	return kernels.Rows{At: c.i.at[c.i.plan.rows].Offset(column * c.precision().AccSize()), Stride: int(g.rows.stride)}
}

func (c *call) precision() kernels.Precision { return c.i.plan.Options.Precision }

func (c *call) at(arena gpu.Ptr, param int, size int64) gpu.Ptr {
	if param < 0 {
		return 0
	}
	return arena.Offset(c.i.plan.Graph.Params[param].Offset * size)
}

// stride is from one shard's gradients to the next one's, in elements.
func (c *call) stride() int64 { return c.i.plan.Graph.ArenaElements }
