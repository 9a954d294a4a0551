package layers

import (
	"ddgpu/gpu"
	"ddgpu/kernels"
)

// groupNorm is a group normalisation with its weight γ and bias β, and SiLU after it or not. With a second input, a vector
// (scale, shift) of 2C values, y = act(norm(x)·(1 + scale) + shift).
type groupNorm struct {
	shape      kernels.Norm // N is the call's
	weight     int          // parameter; the bias is the next one
	scaleShift bool
}

func (b *builder) groupNorm(name string, x *value, groups int, eps float64, silu bool, scaleShift *value) *value {
	s := x.shape
	if s.C%groups != 0 {
		b.fail(name, "%d groups do not divide the channels of its input of %v", groups, s)
		return b.value(name, s)
	}
	o := groupNorm{shape: kernels.Norm{HW: s.pixels(), C: s.C, Groups: groups, Eps: eps, SiLU: silu}, scaleShift: scaleShift != nil}
	o.weight = b.param(name+".weight", AsPublic, Init{Kind: Ones}, s.C)
	bias := b.param(name+".bias", AsPublic, Init{Kind: Zeros}, s.C)
	b.g.Params[bias].follows = true // the gradient of both is one sum over [2][C]
	in := []*value{x}
	if scaleShift != nil {
		if want := (Shape{1, 1, 2 * s.C}); scaleShift.shape != want {
			b.fail(name, "scale and shift of %v for an input of %v: want %v", scaleShift.shape, s, want)
		}
		in = append(in, scaleShift)
	}
	return b.add(name, o, s, in...)
}

func (o groupNorm) kind() string { return "group norm" }

func (o groupNorm) needs() needs {
	n := needs{inputs: []int{0}, params: true, cheap: true, kept: []int64{2 * int64(o.shape.Groups)}, scratch: []int64{2 * int64(o.shape.C)}}
	if o.scaleShift {
		n.inputs = append(n.inputs, 1)
	}
	return n
}

func (o groupNorm) forward(c *call) {
	g := o.shape
	g.N = c.images
	var scaleShift gpu.Ptr
	if o.scaleShift {
		scaleShift = c.in(1)
	}
	moments, tiles := c.moments(), 0
	if moments != 0 {
		from := c.i.plan.Graph.nodes[c.node.convolution].op.(conv).shape
		if tiles = c.q.ConvStatTiles(from); tiles == 0 {
			moments = 0
		}
	}
	c.q.GroupNormForward(g, c.out(), c.kept(0), c.in(0), c.weight(o.weight), c.weight(o.weight+1), scaleShift, 2*g.C, moments, tiles)
}

func (o groupNorm) backward(c *call) {
	g := o.shape
	g.N = c.images
	var scaleShift, dScaleShift gpu.Ptr
	if o.scaleShift {
		scaleShift, dScaleShift = c.in(1), c.dIn(1)
	}
	c.q.GroupNormBackward(g, c.dIn(0), c.scratch(0), dScaleShift, c.dOut(), c.in(0), c.weight(o.weight), c.weight(o.weight+1),
		scaleShift, 2*g.C, c.kept(0))
	c.q.ShardSum(c.shards, g.N, 2*g.C, c.gradient(o.weight), c.stride(), c.scratch(0))
}
