package layers

import (
	"ddgpu/gpu"
	"ddgpu/kernels"
)

// conv is a convolution or a linear layer, with what joins it in its epilogue:
//
//	y = act((w∗x + bias + perImage + residual)·scale), act nothing or SiLU
//
// A group norm that reads y finds statistics of y, where the precision has convolutions that make them.
// Inputs: x, then perImage [C] and residual where there are. The gradients of bias and of perImage are the same sum over pixels; residual's
// is scale·dy, which stays in dy's place.
type conv struct {
	shape              kernels.Conv // N is the call's
	weight, bias       int          // parameters; bias −1: none
	perImage, residual bool
	scale              float64
	silu               bool
}

// convOptions are what a convolution has besides its input and its output's width.
type convOptions struct {
	kernel, stride int    // 0 means 1
	pad            [4]int // rows above and below, columns left and right
	noBias         bool
	perImage       *value // a vector, added to each pixel
	residual       *value
	scale          float64 // 0 means 1
}

// same is the padding of a convolution with an odd kernel that keeps the image's size at stride 1.
func same(kernel int) [4]int {
	p := kernel / 2
	return [4]int{p, p, p, p}
}

func (b *builder) conv(name string, x *value, width int, o convOptions) *value {
	o.kernel, o.stride = max(o.kernel, 1), max(o.stride, 1)
	if o.scale == 0 {
		o.scale = 1
	}
	s := x.shape
	h, w := s.H+o.pad[0]+o.pad[1]-o.kernel, s.W+o.pad[2]+o.pad[3]-o.kernel
	if h < 0 || w < 0 {
		b.fail(name, "a kernel of %dx%d does not fit into an input of %v with padding %v", o.kernel, o.kernel, s, o.pad)
	}
	out := Shape{h/o.stride + 1, w/o.stride + 1, width}
	c := conv{
		shape: kernels.Conv{H: s.H, W: s.W, Cin: s.C, Cout: width, KH: o.kernel, KW: o.kernel, Stride: o.stride,
			PadTop: o.pad[0], PadLeft: o.pad[2], OH: out.H, OW: out.W},
		bias: -1, perImage: o.perImage != nil, residual: o.residual != nil, scale: o.scale,
	}
	init := Init{Uniform, s.C * o.kernel * o.kernel}
	c.weight = b.param(name+".weight", Convolution, init, width, s.C, o.kernel, o.kernel)
	if !o.noBias {
		c.bias = b.param(name+".bias", AsPublic, init, width)
	}
	return b.addConv(name, c, out, x, o.perImage, o.residual)
}

// linear is x·W + bias for every pixel; with a residual (… + residual)·scale.
func (b *builder) linear(name string, x *value, width int, residual *value, scale float64) *value {
	return b.linearWith(name, x, width, residual, scale, false)
}

// linearSiLU is SiLU(x·W + bias).
func (b *builder) linearSiLU(name string, x *value, width int) *value {
	return b.linearWith(name, x, width, nil, 1, true)
}

func (b *builder) linearWith(name string, x *value, width int, residual *value, scale float64, silu bool) *value {
	s := x.shape
	c := conv{
		shape: kernels.Conv{H: s.H, W: s.W, Cin: s.C, Cout: width, KH: 1, KW: 1, Stride: 1, OH: s.H, OW: s.W},
		scale: scale, residual: residual != nil, silu: silu,
	}
	init := Init{Uniform, s.C}
	c.weight = b.param(name+".weight", Matrix, init, width, s.C)
	c.bias = b.param(name+".bias", AsPublic, init, width)
	return b.addConv(name, c, Shape{s.H, s.W, width}, x, nil, residual)
}

func (b *builder) addConv(name string, c conv, out Shape, x, perImage, residual *value) *value {
	in := []*value{x}
	if perImage != nil {
		if want := (Shape{1, 1, out.C}); perImage.shape != want {
			b.fail(name, "adding %v to every pixel of %v: want %v", perImage.shape, out, want)
		}
		in = append(in, perImage)
	}
	if residual != nil {
		if residual.shape != out {
			b.fail(name, "adding a residual of %v to an output of %v", residual.shape, out)
		}
		in = append(in, residual)
	}
	if c.bias >= 0 && c.sums() {
		b.g.Params[c.bias].sum = true
	}
	return b.add(name, c, out, in...)
}

func (o conv) kind() string {
	if o.shape.OH*o.shape.OW == 1 && o.shape.H*o.shape.W == 1 {
		return "linear"
	}
	return "conv"
}

func (o conv) needs() needs {
	n := needs{inputs: []int{0}, params: true, adds: true, before: o.silu}
	if o.residual {
		n.passes = 2
		if o.perImage {
			n.passes = 3
		}
	}
	return n
}

// sums says whether backward adds up the pixels of the output's gradient: a vector's gradient is its own sum.
func (o conv) sums() bool { return o.perImage || o.bias >= 0 && o.shape.OH*o.shape.OW > 1 }

// segments is how backward sums the gradient of the weights.
func (o conv) segments(s kernels.Shards, p kernels.Precision) kernels.Segments {
	return o.shape.WeightSegments(s.Size, p)
}

func (o conv) forward(c *call) {
	g := o.shape
	g.N = c.images
	e := kernels.Epilogue{Bias: c.weight(o.bias), Scale: o.scale, SiLU: o.silu, Pre: c.before()}
	if c.q.ConvStatTiles(g) > 0 {
		e.Stats = c.moments()
	}
	i := 1
	if o.perImage {
		e.PerImage, e.PerImageStride = c.in(i), g.Cout
		i++
	}
	if o.residual {
		e.Residual = c.in(i)
	}
	c.q.ConvForward(g, c.out(), c.in(0), c.matrix(o.weight), e)
}

func (o conv) backward(c *call) {
	g := o.shape
	g.N = c.images
	dy, pixels := c.dOut(), g.OH*g.OW
	if o.silu {
		c.q.SiLUBackward(int64(g.N)*int64(pixels)*int64(g.Cout), dy, dy, c.before())
	}
	if o.scale != 1 {
		c.q.Scale(int64(g.N)*int64(pixels)*int64(g.Cout), dy, dy, o.scale)
	}
	c.q.ConvBackwardWeight(g, c.shards, o.segments(c.shards, c.precision()), c.gradient(o.weight), c.stride(), c.segments(), dy, c.in(0))
	switch {
	case c.node.summed: // by the group norm that reads the output
	case o.sums():
		var perImage gpu.Ptr
		if o.perImage {
			perImage = c.dIn(1)
		}
		c.q.PixelSum(g.N, pixels, g.Cout, c.row(o.bias), perImage, dy)
	case o.bias >= 0:
		c.q.ShardSumActivations(c.shards, g.N, g.Cout, c.gradient(o.bias), c.stride(), kernels.Rows{At: dy, Stride: g.Cout})
	}
	if dx := c.dIn(0); dx != 0 {
		c.q.ConvBackwardData(g, dx, dy, c.matrix(o.weight), kernels.Epilogue{Residual: c.prior()})
	}
}
