package layers

import (
	"ddgpu/gpu"
	"ddgpu/kernels"
)

// groupNorm is a group normalisation with its weight γ and bias β, and SiLU after it or not. With a second input, a vector
// (scale, shift) of 2C values, y = act(norm(x)·(1 + scale) + shift). In plans with dropout that is last: a share p of y is 0, the rest divided by
// 1 − p. Backward draws its mask again.
type groupNorm struct {
	shape      kernels.Norm // N is the call's
	weight     int          // parameter; the bias is the next one
	scaleShift bool
	p          float64
	site       int
}

func (b *builder) groupNorm(name string, x *value, groups int, eps float64, silu bool, scaleShift *value) *value {
	return b.groupNormDropout(name, x, groups, eps, silu, scaleShift, 0)
}

// groupNormDropout is groupNorm with SiLU where p > 0.
func (b *builder) groupNormDropout(name string, x *value, groups int, eps float64, silu bool, scaleShift *value, p float64) *value {
	s := x.shape
	if s.C%groups != 0 {
		b.fail(name, "%d groups do not divide the channels of its input of %v", groups, s)
		return b.value(name, s)
	}
	o := groupNorm{shape: kernels.Norm{HW: s.pixels(), C: s.C, Groups: groups, Eps: eps, SiLU: silu}, scaleShift: scaleShift != nil, p: p}
	if p > 0 {
		o.site = b.sites
		b.sites++
		if b.sites > kernels.MaxDropoutSites {
			b.fail(name, "a network has at most %d dropout layers", kernels.MaxDropoutSites)
		}
	}
	o.weight = b.param(name+".weight", AsPublic, Init{Kind: Ones}, s.C)
	b.param(name+".bias", AsPublic, Init{Kind: Zeros}, s.C)
	for i := range 2 {
		b.g.Params[o.weight+i].sum = true
	}
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
	n := needs{inputs: []int{0}, params: true, cheap: true, kept: []int64{2 * int64(o.shape.Groups)}}
	if o.scaleShift {
		n.inputs = append(n.inputs, 1)
	}
	return n
}

// dropout is that of a call.
func (o groupNorm) dropout(c *call) kernels.Dropout {
	if o.p == 0 || !c.i.plan.Options.Dropout {
		return kernels.Dropout{}
	}
	return kernels.Dropout{Site: o.site, P: o.p, State: c.state, Offset: c.offset}
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
	c.q.GroupNormForward(g, o.dropout(c), c.out(), c.kept(0), c.in(0), c.weight(o.weight), c.weight(o.weight+1), scaleShift, 2*g.C,
		moments, tiles)
}

func (o groupNorm) backward(c *call) {
	g := o.shape
	g.N = c.images
	var scaleShift, dScaleShift gpu.Ptr
	if o.scaleShift {
		scaleShift, dScaleShift = c.in(1), c.dIn(1)
	}
	c.q.GroupNormBackward(g, o.dropout(c), c.dIn(0), c.row(o.weight), dScaleShift, c.pixelSums(), c.dOut(), c.in(0),
		c.weight(o.weight), c.weight(o.weight+1), scaleShift, 2*g.C, c.kept(0))
}
