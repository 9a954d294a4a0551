package layers

import (
	"fmt"
	"math"
	"slices"

	"ddgpu/kernels"
)

// PlanOptions says what a plan is for.
type PlanOptions struct {
	// Batch is the images of one launch.
	Batch int
	// Train keeps what Backward needs; without it an Instance has only Forward, and memory is reused at once.
	Train bool
	// Shards divides the batch for the parameter gradients; its zero value is one shard. Used with Train.
	Shards kernels.Shards
	// Precision is the number types.
	Precision kernels.Precision
	// Dropout lets layers drop activations; without it that costs nothing.
	Dropout bool
	// Recompute keeps fewer activations for Backward: the outputs of operations that cost little are computed again when it needs them, with the
	// same bits.
	Recompute bool
	// InputGradient makes Backward compute the gradient of X as well.
	InputGradient bool
	// NoOverlap gives each tensor an allocation of its own, so that a sanitizer sees an access beside it, and no tensor replaces another.
	NoOverlap bool
}

// Plan is the memory of a graph for one batch size: what lies where, and from which step to which.
type Plan struct {
	Graph   *Graph
	Options PlanOptions
	// Activations is the bytes of inputs, outputs, activations and their gradients; Workspace what single launches work in.
	Activations, Workspace int64

	storages             []storage
	nodes                []binding // of Forward, by the graph's nodes
	back                 []binding // of Backward
	again                []repeat  // before each node's backward
	rows                 slot      // of sums, from the first node of Backward to its end
	x, time, labels      slot
	y, dy, dx            slot
	steps                int // of Forward and Backward together
	activations, scratch []slot
}

// slot is a position in Plan.storages.
type slot int

// none is the slot of what is not there.
const none slot = -1

// storage is memory that one tensor has from step first to step last. Step i < n is the forward of node i, step 2n−1−i its backward.
type storage struct {
	name        string
	bytes       int64
	first, last int
	workspace   bool
	constants   []float64
	offset      int64 // within the activations or the workspace
}

// binding is where the tensors of a node lie.
type binding struct {
	in, out, kept, scratch []slot
	dIn                    []slot
	dOut, prior, constants slot
	moments                slot   // of a convolution: where it leaves statistics for a group norm; of a group norm: where they are
	convolution            int    // of a group norm with moments: the node that left them
	before                 slot   // of a convolution with SiLU: its output before it
	sumsFor                int    // of a group norm's backward: 1 + the convolution for which it adds up the pixels of its input's gradient
	summed                 bool   // of that convolution
	rounded                slot   // of both: the sums as activations are stored
	segments               slot   // of a convolution's backward: the sums of its weight gradient's segments
	terms                  []slot // of a fan-out: the gradients to add up
	idle                   bool   // forward does nothing, the output is the input
	backward               bool
}

// repeat is what is computed again before the backward of a node: nodes, in the order of Forward, with where they read and write then.
type repeat struct {
	nodes    []int
	bindings []binding
}

// Plan lays out memory for a batch size. It touches no device.
func (g *Graph) Plan(o PlanOptions) (*Plan, error) {
	if o.Batch < 1 {
		return nil, fmt.Errorf("planning memory for a batch of %d images: want at least 1", o.Batch)
	}
	if o.Train && o.Shards == (kernels.Shards{}) {
		o.Shards = kernels.Shards{Count: 1, Size: o.Batch}
	}
	if o.Train && (o.Shards.Count < 1 || o.Shards.Size < 1 || int64(o.Shards.Count)*int64(o.Shards.Size) < int64(o.Batch)) {
		return nil, fmt.Errorf("planning memory: %d shards of %d images do not hold a batch of %d", o.Shards.Count, o.Shards.Size, o.Batch)
	}
	for _, n := range g.nodes {
		s := n.out[0].shape
		if int64(o.Batch)*int64(s.pixels()) > math.MaxInt32 {
			return nil, fmt.Errorf("%s: %d images of %v have more pixels than a launch can count", n.name, o.Batch, s)
		}
		// Positions within a shard are 32 bits in the weight gradients of kernels/tensor_load.cuh.
		if o.Train && int64(o.Shards.Size)*s.Elements() > math.MaxInt32 {
			return nil, fmt.Errorf("%s: a shard of %d images of %v has more values than a weight gradient can count: a smaller batch has smaller shards",
				n.name, o.Shards.Size, s)
		}
	}
	p := &planner{Plan: &Plan{Graph: g, Options: o, nodes: make([]binding, len(g.nodes)), steps: len(g.nodes)}}
	if o.Train {
		p.steps *= 2
	}
	p.forward()
	if o.Train {
		p.backward()
	}
	p.pack()
	return p.Plan, nil
}

// planner walks through Forward and Backward and notes when each tensor is used.
type planner struct {
	*Plan
	at    []slot // of the graph's values
	maker []int  // of the graph's values: the node whose output it is, −1 for the input
	fresh []slot // of the graph's nodes: the output where Backward computed it again
}

func (p *planner) new(name string, bytes int64, step int) slot {
	p.storages = append(p.storages, storage{name: name, bytes: bytes, first: step, last: step})
	return slot(len(p.storages) - 1)
}

// reals makes storage for a number of activations for each image.
func (p *planner) reals(name string, perImage int64, step int) slot {
	return p.new(name, perImage*int64(p.Options.Batch)*p.Options.Precision.Size(), step)
}

// sums is reals for statistics and sums, which have the type of parameters.
func (p *planner) sums(name string, perImage int64, step int) slot {
	return p.new(name, perImage*int64(p.Options.Batch)*p.Options.Precision.AccSize(), step)
}

// use notes that a step reads or writes what lies there.
func (p *planner) use(s slot, step int) slot {
	if s != none {
		t := &p.storages[s]
		t.first, t.last = min(t.first, step), max(t.last, step)
	}
	return s
}

// always gives storage to one tensor from before the first step until after the last.
func (p *planner) always(s slot) slot { return p.use(p.use(s, 0), p.steps) }

func (p *planner) forward() {
	g, o := p.Graph, p.Options
	p.at, p.maker = make([]slot, g.values), make([]int, g.values)
	p.maker[g.x.index] = -1
	p.rows = none
	p.x = p.always(p.reals("input", g.In.Elements(), 0))
	p.time = p.always(p.sums("time", 1, 0))
	p.labels, p.dy, p.dx = none, none, none
	if g.Classes > 0 {
		p.labels = p.always(p.new("labels", int64(o.Batch)*4, 0))
	}
	p.at[g.x.index] = p.x
	for i, n := range g.nodes {
		b, need := &p.nodes[i], n.op.needs()
		b.dOut, b.prior, b.constants, b.moments, b.before, b.segments = none, none, none, none, none, none
		b.rounded = none
		for _, v := range n.in {
			b.in = append(b.in, p.use(p.at[v.index], i))
		}
		_, fan := n.op.(fanOut)
		b.idle = fan
		for _, v := range n.out {
			if b.idle {
				p.at[v.index], p.maker[v.index] = b.in[0], p.maker[n.in[0].index]
			} else {
				p.at[v.index], p.maker[v.index] = p.reals(n.name, v.shape.Elements(), i), i
			}
			b.out = append(b.out, p.at[v.index])
		}
		for _, sums := range need.kept {
			b.kept = append(b.kept, p.sums(n.name, sums, i))
		}
		if o.Train && need.before {
			b.before = p.reals(n.name, n.out[0].shape.Elements(), i)
		}
		p.momentsFor(i)
		if need.constants != nil {
			b.constants = p.always(p.new(n.name, int64(len(need.constants))*o.Precision.AccSize(), 0))
			p.storages[b.constants].constants = need.constants
		}
	}
	p.y = p.use(p.at[g.out.index], p.steps)
}

// momentsFor gives a group norm the statistics of the convolution whose output it reads, where the precision has convolutions that make them.
func (p *planner) momentsFor(i int) {
	n, m := p.Graph.nodes[i], -1
	if _, ok := n.op.(groupNorm); ok {
		m = p.maker[n.in[0].index]
	}
	if m < 0 || !p.Options.Precision.Tensor() {
		return
	}
	c, ok := p.Graph.nodes[m].op.(conv)
	if !ok {
		return
	}
	if p.nodes[m].moments == none {
		p.nodes[m].moments = p.sums("statistics of "+p.Graph.nodes[m].name, 2*int64(c.shape.Cout)*int64(c.shape.MostStatTiles()), m)
	}
	p.nodes[i].moments, p.nodes[i].convolution = p.use(p.nodes[m].moments, i), m
}

// segmentsFor gives the backward of a convolution room for the segments of its weight gradient.
func (p *planner) segmentsFor(i, step int) {
	n, o := p.Graph.nodes[i], p.Options
	c, ok := n.op.(conv)
	if !ok {
		return
	}
	if sums := c.segments(o.Shards, o.Precision).Work(c.shape, o.Shards.Count); sums > 0 {
		s := p.new("segments of "+n.name, sums*o.Precision.AccSize(), step)
		p.storages[s].workspace = true
		p.back[i].segments = s
	}
}

// pixelSumsFor has the backward of a group norm add up the pixels of its input's gradient, where that is all of the gradient of a convolution's output
// and what the convolution's backward adds up.
func (p *planner) pixelSumsFor(i, step int) {
	n := p.Graph.nodes[i]
	m := p.maker[n.in[0].index]
	if _, ok := n.op.(groupNorm); !ok || m < 0 || p.Graph.nodes[m].out[0] != n.in[0] {
		return
	}
	c, ok := p.Graph.nodes[m].op.(conv)
	if !ok || !c.sums() || c.scale != 1 || c.silu {
		return
	}
	p.back[i].sumsFor, p.back[m].summed = 1+m, true
	if c.perImage {
		p.back[i].rounded = p.reals("gradient of "+p.Graph.nodes[m].in[1].name, int64(c.shape.Cout), step)
		p.back[m].rounded = p.back[i].rounded
	}
}

func (p *planner) backward() {
	g, o := p.Graph, p.Options
	// Which values have a gradient: those that a parameter, or the input where its gradient is asked for, has a part in.
	wanted := make([]bool, g.values)
	wanted[g.x.index] = o.InputGradient
	branchOf := make([]int, g.values) // 1 + the fan-out that a value comes from
	for i, n := range g.nodes {
		_, fan := n.op.(fanOut)
		for _, v := range n.out {
			wanted[v.index] = n.op.needs().params
			for _, x := range n.in {
				wanted[v.index] = wanted[v.index] || wanted[x.index]
			}
			if fan {
				branchOf[v.index] = i + 1
			}
		}
	}
	p.back, p.again, p.fresh = slices.Clone(p.nodes), make([]repeat, len(g.nodes)), make([]slot, len(g.nodes))
	for i := range p.fresh {
		p.fresh[i] = none
	}
	p.dy = p.always(p.reals("gradient of the output", g.Out.Elements(), 0))
	if g.rows.width > 0 {
		p.rows = p.use(p.sums("rows of sums", g.rows.stride, len(g.nodes)), p.steps)
	}
	gradient := make([]slot, g.values)
	gradient[g.out.index] = p.dy
	for i := len(g.nodes) - 1; i >= 0; i-- {
		n, b, step := g.nodes[i], &p.back[i], p.steps-1-i
		if !wanted[n.out[0].index] {
			continue
		}
		b.backward = true
		need := n.op.needs()
		if _, fan := n.op.(fanOut); fan {
			for _, t := range b.terms {
				p.use(t, step)
			}
			gradient[n.in[0].index] = b.terms[0]
			b.backward = len(b.terms) > 1 // otherwise there is nothing to add
			continue
		}
		b.dOut = p.use(gradient[n.out[0].index], step)
		b.in, b.out = slices.Clone(b.in), slices.Clone(b.out)
		for _, j := range need.inputs {
			b.in[j] = p.read(n.in[j], step, &p.again[i])
		}
		if need.output {
			b.out[0] = p.read(n.out[0], step, &p.again[i])
		}
		for _, s := range b.kept {
			p.use(s, step)
		}
		p.use(b.before, step)
		p.pixelSumsFor(i, step)
		for _, sums := range need.scratch {
			s := p.sums(n.name, sums, step)
			p.storages[s].workspace = true
			b.scratch = append(b.scratch, s)
		}
		p.segmentsFor(i, step)
		for j, v := range n.in {
			var terms *[]slot // of the fan-out that v is a branch of, so far
			if f := branchOf[v.index]; f > 0 {
				terms = &p.back[f-1].terms
			}
			s := none
			switch {
			case need.passes == j+1:
				s = b.dOut
			case j == 1 && b.summed && b.rounded != none:
				s = p.use(b.rounded, step)
			case need.adds && j == 0 && !wanted[v.index]:
			case need.adds && j == 0 && terms != nil && len(*terms) > 0:
				// The sum so far is added to and replaced.
				b.prior = p.use((*terms)[len(*terms)-1], step)
				b.dIn = append(b.dIn, b.prior)
				continue
			default:
				s = p.reals("gradient of "+v.name, v.shape.Elements(), step)
			}
			b.dIn = append(b.dIn, s)
			gradient[v.index] = s
			if terms != nil && s != none {
				*terms = append(*terms, s)
			}
		}
	}
	if o.InputGradient {
		p.dx = p.use(gradient[g.x.index], p.steps)
	}
}

// read is where a step of Backward finds a value: where Forward left it, or, where Forward gave it up, where it is computed again. What that
// takes is noted for the first step that needs it; later ones find the value there.
func (p *planner) read(v *value, step int, r *repeat) slot {
	i := p.maker[v.index]
	if i < 0 || !p.Options.Recompute || !p.Graph.nodes[i].repeats() {
		return p.use(p.at[v.index], step)
	}
	if p.fresh[i] == none {
		n, b := p.Graph.nodes[i], p.nodes[i]
		b.in = nil
		for _, x := range n.in {
			b.in = append(b.in, p.read(x, step, r))
		}
		for _, s := range b.kept {
			p.use(s, step)
		}
		p.use(b.moments, step)
		p.fresh[i] = p.reals(n.name, n.out[0].shape.Elements(), step)
		b.out = []slot{p.fresh[i]}
		r.nodes, r.bindings = append(r.nodes, i), append(r.bindings, b)
	}
	return p.use(p.fresh[i], step)
}
