package layers

import (
	"errors"
	"fmt"
)

// Shape is a value's shape for one image: H×W pixels of C channels. A vector has H = W = 1.
type Shape struct{ H, W, C int }

func (s Shape) String() string { return fmt.Sprintf("%dx%dx%d", s.H, s.W, s.C) }

// Elements is how many numbers one image has.
func (s Shape) Elements() int64 { return int64(s.H) * int64(s.W) * int64(s.C) }

func (s Shape) pixels() int { return s.H * s.W }

// Graph is a network: what it computes and which parameters it has, for any batch size. It does not change after it is built.
type Graph struct {
	// In and Out are the shapes of the network's input and output.
	In, Out Shape
	// Classes is how many labels there are, 0 for a network without.
	Classes int
	// Params are the parameters, in the order of the layers.
	Params []Param
	// Parameters is how many numbers are learned, ArenaElements the length of an arena that holds them: each tensor at its Offset, and
	// SpareElements at the end that belong to no tensor.
	Parameters, ArenaElements int64

	rows   rows
	nodes  []*node // in the order of Forward
	values int
	x, out *value
}

// value is what a node computes, for a batch [N][H][W][C].
type value struct {
	name      string // of the layer that computes it
	shape     Shape
	index     int
	consumers []use
}

// use is an input of a node.
type use struct {
	node  *node
	input int
}

// node is one operation with its inputs and outputs. All but fan-outs have one output.
type node struct {
	name    string
	op      op
	in, out []*value
}

// op is what a node computes. forward and backward launch kernels and do nothing else; the call says where everything lies.
type op interface {
	// kind names the operation, for reports.
	kind() string
	// needs says what backward reads, and which memory the operation uses besides its inputs and output.
	needs() needs
	forward(c *call)
	// backward assigns the gradients of the inputs, and those of the parameters for each shard, from the output's gradient.
	backward(c *call)
}

// needs is what the memory plan must know of an operation.
type needs struct {
	inputs []int // backward reads the values of these inputs
	output bool  // backward reads the output's value
	params bool  // there are parameters

	kept      []int64   // statistics and sums of one image that forward leaves for backward
	scratch   []int64   // sums of one image that backward works in
	constants []float64 // a table that forward reads
	before    bool      // forward leaves its output before an activation for backward

	// adds: backward can leave the gradient of input 0 out, and can add another gradient to it.
	adds bool
	// passes: the gradient of this input, counted from 1, is what backward leaves in the output's gradient.
	passes int
	// cheap: computing the output again costs little beside the convolutions around it.
	cheap bool
}

// repeats says whether a plan that recomputes does so with the node's output: not with a vector, which is small.
func (n *node) repeats() bool { return n.op.needs().cheap && n.out[0].shape.pixels() > 1 }

// builder makes a graph. It keeps the first error that a layer has, and adds nothing after it.
type builder struct {
	g      *Graph
	values []*value
	err    error
	sites  int // layers with dropout so far
}

func newBuilder(in Shape) *builder {
	b := &builder{g: &Graph{In: in}}
	b.g.x = b.value("input", in)
	return b
}

// fail keeps the first error, which names the layer.
func (b *builder) fail(layer, format string, args ...any) {
	if b.err == nil {
		b.err = fmt.Errorf("%s: %s", layer, fmt.Sprintf(format, args...))
	}
}

func (b *builder) value(name string, s Shape) *value {
	v := &value{name: name, shape: s, index: len(b.values)}
	b.values = append(b.values, v)
	return v
}

// add appends a node with one output.
func (b *builder) add(name string, o op, out Shape, in ...*value) *value {
	y := b.value(name, out)
	if b.err != nil {
		return y
	}
	n := &node{name: name, op: o, in: in, out: []*value{y}}
	for i, x := range in {
		x.consumers = append(x.consumers, use{n, i})
	}
	b.g.nodes = append(b.g.nodes, n)
	return y
}

// finish ends the graph with its output: every value gets one consumer, every parameter its place.
func (b *builder) finish(out *value) (*Graph, error) {
	if b.err != nil {
		return nil, b.err
	}
	g := b.g
	g.Out, g.out = out.shape, out
	for _, v := range b.values {
		if (len(v.consumers) == 0) != (v == out) {
			return nil, fmt.Errorf("%s: %d layers use its output", v.name, len(v.consumers))
		}
	}
	last := g.nodes[len(g.nodes)-1]
	if need := last.op.needs(); last.out[0] != out || need.passes != 0 || need.before {
		return nil, errors.New("a network must end with a layer that leaves the gradient of its output alone")
	}
	b.fanOuts()
	g.values = len(b.values)
	g.place()
	return g, nil
}

// fanOuts puts a fan-out behind each value that has several consumers; each of its outputs goes to one of them.
func (b *builder) fanOuts() {
	var nodes []*node
	split := func(v *value) {
		if len(v.consumers) < 2 {
			return
		}
		f := &node{name: v.name, op: fanOut{v.shape}, in: []*value{v}}
		for _, u := range v.consumers {
			branch := b.value(v.name, v.shape)
			branch.consumers = []use{u}
			u.node.in[u.input] = branch
			f.out = append(f.out, branch)
		}
		v.consumers = []use{{f, 0}}
		nodes = append(nodes, f)
	}
	split(b.g.x)
	for _, n := range b.g.nodes {
		nodes = append(nodes, n)
		split(n.out[0])
	}
	b.g.nodes = nodes
}

// fanOut gives one value to several consumers: its outputs are its input, without a copy. Backward is the sum of their gradients, in the order
// in which the backward pass meets the consumers. A consumer that `adds` takes in the gradient before it; its own is then the sum.
type fanOut struct{ shape Shape }

func (f fanOut) kind() string  { return "fan-out" }
func (f fanOut) needs() needs  { return needs{} }
func (f fanOut) forward(*call) {}

func (f fanOut) backward(c *call) {
	sum := c.term(0)
	for i := 1; i < len(c.node.terms); i++ {
		c.q.Add(int64(c.images)*f.shape.Elements(), sum, sum, c.term(i))
	}
}
