package layers

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
