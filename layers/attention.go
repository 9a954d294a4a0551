package layers

import "ddgpu/kernels"

// attention is softmax attention over the pixels of an image; inputs: queries, keys, values.
type attention struct{ shape kernels.Attention }

func (b *builder) attention(name string, q, k, v *value, heads int, scale float64) *value {
	s := q.shape
	if k.shape != s || v.shape != s {
		b.fail(name, "queries of %v, keys of %v, values of %v", s, k.shape, v.shape)
	}
	if dim := s.C / heads; s.C%heads != 0 || dim > kernels.MaxHeadDim {
		b.fail(name, "%d heads over an input of %v: want heads of at most %d channels", heads, s, kernels.MaxHeadDim)
	}
	o := attention{kernels.Attention{L: s.pixels(), Heads: heads, Dim: s.C / heads, Scale: scale}}
	return b.add(name, o, s, q, k, v)
}

func (o attention) kind() string { return "attention" }

func (o attention) needs() needs {
	rows := int64(o.shape.Heads) * int64(o.shape.L)
	return needs{inputs: []int{0, 1, 2}, output: true, kept: []int64{rows}, scratch: []int64{rows}}
}

func (o attention) forward(c *call) {
	g := o.shape
	g.N = c.images
	c.q.AttentionForward(g, c.out(), c.kept(0), c.in(0), c.in(1), c.in(2))
}

func (o attention) backward(c *call) {
	g := o.shape
	g.N = c.images
	c.q.AttentionBackward(g, c.dIn(0), c.dIn(1), c.dIn(2), c.scratch(0), c.dOut(), c.out(), c.kept(0), c.in(0), c.in(1), c.in(2))
}
