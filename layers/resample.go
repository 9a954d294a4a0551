package layers

// upsample doubles an image by nearest neighbours.
type upsample struct{ shape Shape } // of the input

func (b *builder) upsample(name string, x *value) *value {
	s := x.shape
	return b.add(name, upsample{s}, Shape{2 * s.H, 2 * s.W, s.C}, x)
}

func (o upsample) kind() string { return "upsample" }
func (o upsample) needs() needs { return needs{cheap: true} }

func (o upsample) forward(c *call) {
	c.q.Upsample2Forward(c.images, o.shape.H, o.shape.W, o.shape.C, c.out(), c.in(0))
}

func (o upsample) backward(c *call) {
	c.q.Upsample2Backward(c.images, o.shape.H, o.shape.W, o.shape.C, c.dIn(0), c.dOut())
}

// averagePool halves an image by the means of squares of four.
type averagePool struct{ shape Shape } // of the input

func (b *builder) averagePool(name string, x *value) *value {
	s := x.shape
	if s.H < 2 || s.W < 2 {
		b.fail(name, "a window of 2x2 does not fit into an input of %v", s)
	}
	return b.add(name, averagePool{s}, Shape{s.H / 2, s.W / 2, s.C}, x)
}

func (o averagePool) kind() string { return "average pool" }
func (o averagePool) needs() needs { return needs{cheap: true} }

func (o averagePool) forward(c *call) {
	c.q.AvgPool2Forward(c.images, o.shape.H, o.shape.W, o.shape.C, c.out(), c.in(0))
}

func (o averagePool) backward(c *call) {
	c.q.AvgPool2Backward(c.images, o.shape.H, o.shape.W, o.shape.C, c.dIn(0), c.dOut())
}

// concat joins the channels of two images, those of input 0 first.
type concat struct{ pixels, a, b int }

func (b *builder) concat(name string, hidden, skip *value) *value {
	h, s := hidden.shape, skip.shape
	if h.H != s.H || h.W != s.W {
		b.fail(name, "concatenating %v (hidden) and %v (skip), of different sizes", h, s)
	}
	return b.add(name, concat{h.pixels(), h.C, s.C}, Shape{h.H, h.W, h.C + s.C}, hidden, skip)
}

func (o concat) kind() string { return "concat" }
func (o concat) needs() needs { return needs{cheap: true} }

func (o concat) forward(c *call) {
	c.q.ConcatForward(int64(c.images)*int64(o.pixels), o.a, o.b, c.out(), c.in(0), c.in(1))
}

func (o concat) backward(c *call) {
	c.q.ConcatBackward(int64(c.images)*int64(o.pixels), o.a, o.b, c.dIn(0), c.dIn(1), c.dOut())
}
