package kernels

import "ddgpu/gpu"

// Conv is the shape of a convolution: x [N][H][W][Cin], w [KH][KW][Cin][Cout], y [N][OH][OW][Cout], with zeros around x and PadTop rows of
// them above, PadLeft columns to the left of what the first output sees. A linear layer has images, kernel and stride of 1.
type Conv struct {
	N, H, W, Cin, Cout, KH, KW, Stride, PadTop, PadLeft, OH, OW int
}

// Linear is the Conv of rows×in → rows×out.
func Linear(rows, in, out int) Conv {
	return Conv{N: rows, H: 1, W: 1, Cin: in, Cout: out, KH: 1, KW: 1, Stride: 1, OH: 1, OW: 1}
}

// FLOPs is the arithmetic of the forward, of the data gradient or of the weight gradient: two for each multiply-add.
func (c Conv) FLOPs() float64 {
	return 2 * float64(c.N) * float64(c.OH*c.OW) * float64(c.KH*c.KW) * float64(c.Cin) * float64(c.Cout)
}

// Epilogue is what a convolution does with its product before it writes: v = (product + bias + perImage[image] + residual)·Scale, and y = v or, with
// SiLU, v·sigmoid(v). What is 0 is left out; a Scale of 0 means 1.
type Epilogue struct {
	Bias           gpu.Ptr // [C]
	PerImage       gpu.Ptr // [N], rows of PerImageStride values
	PerImageStride int
	Residual       gpu.Ptr // shaped like the output
	Scale          float64
	SiLU           bool
	Pre            gpu.Ptr // with SiLU: v, shaped like the output
	Stats          gpu.Ptr // of ConvForward, with ConvStatTiles tiles an image: [N][tiles][C][2], each channel's moments (GroupNormForward)
}

func (e Epilogue) args() []arg {
	if e.Scale == 0 {
		e.Scale = 1
	}
	silu := 0
	if e.SiLU {
		silu = 1
	}
	return []arg{ptr(e.Bias), ptr(e.PerImage), ptr(e.Residual), i32(e.PerImageStride), realArg(e.Scale), ptr(e.Pre), ptr(e.Stats), i32(silu)}
}

// Shards says how the images of a launch are divided: image i is of shard i/Size. Shards past the last image are empty.
type Shards struct{ Count, Size int }

const (
	pixelParams  = "ppppppirppi" + "iiiiiiiiiiii"
	weightParams = "ppppl" + "iii" + "iiiiiiiiiiiii"
)

// convKernels are the entries of one operation: by tile, and whether channel counts are multiples of what the aligned ones move at once. Medium
// and small tiles exist on tensor cores only.
type convKernels struct{ large, largeAny, medium, small, narrow, narrowAny declaration }

func declareConv(op, params string) convKernels {
	return convKernels{
		declare(op+"_large", params), declare(op+"_large_any", params), declareTensor(op+"_medium", params), declareTensor(op+"_small", params),
		declare(op+"_narrow", params), declare(op+"_narrow_any", params),
	}
}

var (
	convForwardKernels        = declareConv("conv_forward", pixelParams)
	convBackwardDataKernels   = declareConv("conv_backward_data", pixelParams)
	convBackwardWeightKernels = declareConv("conv_backward_weight", weightParams)
)

func (c Conv) args() []arg {
	return []arg{
		i32(c.N), i32(c.H), i32(c.W), i32(c.Cin), i32(c.Cout), i32(c.KH), i32(c.KW), i32(c.Stride), i32(c.PadTop), i32(c.PadLeft),
		i32(c.OH), i32(c.OW),
	}
}

// ConvForward computes y[n,p,q,o] = Σ_{a,b,c} x[n, p·Stride−PadTop+a, q·Stride−PadLeft+b, c]·w[a,b,c,o] with the epilogue.
func (q *Queue) ConvForward(g Conv, y, x, w gpu.Ptr, e Epilogue) {
	k := q.variant(convForwardKernels, g.forward())
	t := q.geometry(k)
	grid := [3]int{int(blocks(int64(g.N)*int64(g.OH*g.OW), int64(t[1]))), int(blocks(int64(g.Cout), int64(t[2]))), 1}
	q.launch(k, grid, 0, append(append([]arg{ptr(y), ptr(x), ptr(w)}, e.args()...), g.args()...)...)
}

// ConvBackwardData computes dx of ConvForward; with the epilogue it is also the forward of the transposed convolution from dy's shape to
// dx's.
func (q *Queue) ConvBackwardData(g Conv, dx, dy, w gpu.Ptr, e Epilogue) {
	k := q.variant(convBackwardDataKernels, g.backwardData())
	t := q.geometry(k)
	// The first class of a strided gradient has the most pixels.
	rows := int64(g.N) * blocks(int64(g.H), int64(g.Stride)) * blocks(int64(g.W), int64(g.Stride))
	grid := [3]int{int(blocks(rows, int64(t[1]))), int(blocks(int64(g.Cin), int64(t[2]))), g.Stride * g.Stride}
	q.launch(k, grid, 0, append(append([]arg{ptr(dx), ptr(dy), ptr(w)}, e.args()...), g.args()...)...)
}

// MostStatTiles is the most tiles of an image that ConvStatTiles can give on any device: no tile has fewer rows.
func (c Conv) MostStatTiles() int { return max(1, c.OH*c.OW/64) }

// ConvStatTiles is how many tiles of an image ConvForward makes statistics of (Epilogue.Stats), 0 where it makes none: it does on tensor cores where
// a tile is a part of an image, or whole images of 16 pixels and more.
func (q *Queue) ConvStatTiles(g Conv) int {
	if !q.tensor() {
		return 0
	}
	rows, pixels := int(q.geometry(q.variant(convForwardKernels, g.forward()))[1]), g.OH*g.OW
	switch {
	case pixels%rows == 0:
		return pixels / rows
	case rows%pixels == 0 && pixels%16 == 0:
		return 1
	}
	return 0
}
