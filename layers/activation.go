package layers

import "ddgpu/kernels"

// silu is y = x·σ(x), where no normalisation is before it to do so.
type silu struct{ shape Shape }

func (b *builder) silu(name string, x *value) *value { return b.add(name, silu{x.shape}, x.shape, x) }

func (o silu) kind() string { return "silu" }
func (o silu) needs() needs { return needs{inputs: []int{0}, cheap: true} }

func (o silu) forward(c *call) {
	c.q.SiLUForward(int64(c.images)*o.shape.Elements(), c.out(), c.in(0))
}

func (o silu) backward(c *call) {
	c.q.SiLUBackward(int64(c.images)*o.shape.Elements(), c.dIn(0), c.dOut(), c.in(0))
}

// dropout zeroes elements with probability p and divides the others by 1 − p. Its mask is drawn again in backward.
type dropout struct {
	shape Shape
	site  int
	p     float64
}

func (b *builder) dropout(name string, x *value, p float64) *value {
	if p == 0 {
		return x
	}
	o := dropout{x.shape, b.sites, p}
	b.sites++
	if b.sites > kernels.MaxDropoutSites {
		b.fail(name, "a network has at most %d dropout layers", kernels.MaxDropoutSites)
	}
	return b.add(name, o, x.shape, x)
}

func (o dropout) kind() string { return "dropout" }
func (o dropout) needs() needs { return needs{dropout: true, cheap: true} }

func (o dropout) forward(c *call) {
	c.q.Dropout(o.size(c), o.site, o.p, c.out(), c.in(0), c.state, c.offset)
}

func (o dropout) backward(c *call) {
	c.q.Dropout(o.size(c), o.site, o.p, c.dIn(0), c.dOut(), c.state, c.offset)
}

func (o dropout) size(c *call) kernels.DropoutShape {
	return kernels.DropoutShape{N: c.images, PerImage: o.shape.Elements()}
}
