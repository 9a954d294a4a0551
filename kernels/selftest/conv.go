package selftest

import (
	"fmt"
	"math"
	"slices"

	"ddgpu/gpu"
	"ddgpu/kernels"
)

// conv is the shape of a convolution with padding (top, left, bottom, right).
func conv(n, h, w, cin, cout, kh, kw, stride int, pad [4]int) kernels.Conv {
	return kernels.Conv{N: n, H: h, W: w, Cin: cin, Cout: cout, KH: kh, KW: kw, Stride: stride, PadTop: pad[0], PadLeft: pad[1],
		OH: (h+pad[0]+pad[2]-kh)/stride + 1, OW: (w+pad[1]+pad[3]-kw)/stride + 1}
}

var (
	none        = [4]int{}
	one         = [4]int{1, 1, 1, 1}
	two         = [4]int{2, 2, 2, 2}
	rightBottom = [4]int{0, 0, 1, 1}
)

// convShapes cross the tiles of all entries: channel counts below, at and beyond what a vector and a tile hold, pixels beyond a tile, and
// every kind of padding, kernel and stride, also a stride beyond the kernel, where some input pixels are seen by no output.
var convShapes = []kernels.Conv{
	conv(2, 9, 7, 1, 16, 3, 3, 1, one),
	conv(2, 9, 7, 3, 17, 3, 3, 1, one),
	conv(3, 7, 6, 16, 16, 3, 3, 1, one),
	conv(2, 5, 7, 17, 48, 3, 3, 1, one),
	conv(2, 6, 5, 48, 96, 3, 3, 1, one),
	conv(1, 7, 5, 96, 3, 3, 3, 1, none),
	conv(2, 5, 6, 16, 1, 3, 3, 1, one),
	conv(2, 8, 10, 16, 48, 3, 3, 2, rightBottom),
	conv(1, 9, 7, 17, 3, 3, 3, 2, rightBottom),
	conv(2, 9, 8, 48, 16, 3, 3, 2, one),
	conv(1, 7, 9, 3, 96, 3, 3, 2, one),
	conv(3, 7, 5, 96, 48, 1, 1, 1, none),
	conv(2, 5, 3, 17, 1, 1, 1, 1, none),
	conv(1, 8, 7, 16, 17, 1, 1, 2, none),
	conv(2, 9, 11, 3, 16, 5, 5, 1, two),
	conv(1, 8, 7, 16, 33, 5, 5, 2, two),
	conv(2, 6, 5, 17, 16, 2, 2, 1, rightBottom),
	conv(2, 6, 7, 16, 48, 2, 2, 2, none),
	conv(2, 11, 8, 17, 17, 3, 3, 3, one),
	conv(1, 10, 7, 3, 16, 2, 2, 3, none),
	conv(2, 4, 6, 5, 7, 5, 3, 1, [4]int{2, 1, 2, 1}),
	conv(1, 1, 1, 1, 1, 1, 1, 1, none),
	conv(3, 13, 11, 16, 136, 3, 3, 1, one),
	conv(3, 13, 11, 130, 18, 1, 1, 1, none),
	// The host's Winograd tiles: cut off at the bottom and right, more of them than a block has, channels beyond a panel and a K step.
	conv(3, 8, 7, 48, 96, 3, 3, 1, one),
	conv(2, 14, 14, 32, 80, 3, 3, 1, one),
	conv(7, 12, 11, 144, 32, 3, 3, 1, one),
	conv(2, 10, 13, 64, 48, 3, 3, 1, none),
	conv(2, 12, 15, 32, 32, 3, 3, 1, [4]int{2, 0, 0, 1}),
	conv(1, 6, 7, 272, 48, 3, 3, 1, two),
}

// convGeometries are images, kernels, strides and paddings, those with more than 64 pixels first, so that tiles of tensor cores for large and for
// small images have all kinds.
var convGeometries = []func(n, cin, cout int) kernels.Conv{
	func(n, cin, cout int) kernels.Conv { return conv(n, 9, 8, cin, cout, 3, 3, 1, one) },
	func(n, cin, cout int) kernels.Conv { return conv(n, 11, 7, cin, cout, 1, 1, 1, none) },
	func(n, cin, cout int) kernels.Conv { return conv(n, 17, 18, cin, cout, 3, 3, 2, rightBottom) },
	func(n, cin, cout int) kernels.Conv { return conv(n, 5, 14, cin, cout, 5, 5, 1, two) },
	func(n, cin, cout int) kernels.Conv { return conv(n, 9, 9, cin, cout, 2, 3, 1, [4]int{1, 2, 0, 0}) },
	func(n, cin, cout int) kernels.Conv { return conv(n, 4, 4, cin, cout, 3, 3, 1, one) },
	func(n, cin, cout int) kernels.Conv { return conv(n, 8, 7, cin, cout, 1, 1, 1, none) },
	func(n, cin, cout int) kernels.Conv { return conv(n, 8, 8, cin, cout, 3, 3, 2, rightBottom) },
	func(n, cin, cout int) kernels.Conv { return conv(n, 3, 5, cin, cout, 5, 5, 1, two) },
	func(n, cin, cout int) kernels.Conv { return conv(n, 7, 7, cin, cout, 7, 7, 1, [4]int{3, 3, 3, 3}) },
}

// mixedShapes are pairs of channel counts, each with geometries in turn: odd ones, and for tensor cores those that fill whole steps of `depth`
// channels with columns below, at and beyond each tile's. turned swaps input and output.
func mixedShapes(turned bool) []kernels.Conv {
	var shapes []kernels.Conv
	add := func(n, depth, columns, geometry int) {
		if turned {
			depth, columns = columns, depth
		}
		shapes = append(shapes, convGeometries[geometry%len(convGeometries)](n, depth, columns))
	}
	odd := []int{1, 3, 5, 8, 12, 17, 24, 96, 100, 320}
	for i, depth := range odd {
		for j, columns := range odd {
			add(1+(i+j)%5*40/(40+min(depth, columns)), depth, columns, 3*i+j)
		}
	}
	for i, depth := range []int{32, 64, 96, 160, 320} {
		for j, columns := range []int{8, 24, 40, 72, 96, 104, 128, 136, 224, 232} {
			add(1+(i+j)%3*40/(40+min(depth, columns)), depth, columns, (i+j)%5)
			if depth%64 == 0 {
				add(1+(i+j)%5, depth, columns, 5+(i+j)%4)
			}
		}
	}
	return shapes
}

var linearShapes = []kernels.Conv{
	kernels.Linear(5, 33, 18), kernels.Linear(1, 8, 32), kernels.Linear(67, 32, 128), kernels.Linear(131, 48, 66), kernels.Linear(3, 1, 1),
}

// isLinear says whether a shape is a linear layer's.
func isLinear(g kernels.Conv) bool { return g == kernels.Linear(g.N, g.Cin, g.Cout) }

func convShape(g kernels.Conv) string {
	if isLinear(g) {
		return fmt.Sprintf("%d×%d→%d", g.N, g.Cin, g.Cout)
	}
	return fmt.Sprintf("%d×%d×%d×%d→%d×%d×%d k%d×%d s%d p%d,%d", g.N, g.H, g.W, g.Cin, g.OH, g.OW, g.Cout, g.KH, g.KW, g.Stride, g.PadTop, g.PadLeft)
}

func xSize(g kernels.Conv) int { return g.N * g.H * g.W * g.Cin }
func ySize(g kernels.Conv) int { return g.N * g.OH * g.OW * g.Cout }
func wSize(g kernels.Conv) int { return g.KH * g.KW * g.Cin * g.Cout }

func convBytes(g kernels.Conv) float64 { return 4 * float64(xSize(g)+ySize(g)+wSize(g)) }

// images is the same convolution over n images.
func images(g kernels.Conv, n int) kernels.Conv {
	g.N = n
	return g
}

// eachTap calls f for every pair of an output pixel of image n and an input pixel that it sees, with the tap between them.
func eachTap(g kernels.Conv, n int, f func(y, x, tap int)) {
	for p := range g.OH {
		for q := range g.OW {
			for a := range g.KH {
				for b := range g.KW {
					h, w := p*g.Stride-g.PadTop+a, q*g.Stride-g.PadLeft+b
					if h >= 0 && h < g.H && w >= 0 && w < g.W {
						f((n*g.OH+p)*g.OW+q, (n*g.H+h)*g.W+w, a*g.KW+b)
					}
				}
			}
		}
	}
}

func convForward(g kernels.Conv, x, w []float64) []float64 {
	y := make([]float64, ySize(g))
	for n := range g.N {
		eachTap(g, n, func(yi, xi, tap int) {
			row := y[yi*g.Cout : (yi+1)*g.Cout]
			for c := range g.Cin {
				v, weights := x[xi*g.Cin+c], w[(tap*g.Cin+c)*g.Cout:]
				for o := range row {
					row[o] += v * weights[o]
				}
			}
		})
	}
	return y
}

func convBackwardData(g kernels.Conv, dy, w []float64) []float64 {
	dx := make([]float64, xSize(g))
	for n := range g.N {
		eachTap(g, n, func(yi, xi, tap int) {
			row := dy[yi*g.Cout : (yi+1)*g.Cout]
			for c := range g.Cin {
				weights := w[(tap*g.Cin+c)*g.Cout:]
				for o := range row {
					dx[xi*g.Cin+c] += row[o] * weights[o]
				}
			}
		})
	}
	return dx
}

// convBackwardWeight writes the gradient of each shard at partial[shard·stride].
func convBackwardWeight(g kernels.Conv, s kernels.Shards, partial []float64, stride int, dy, x []float64) {
	for shard := range s.Count {
		dw := partial[shard*stride : shard*stride+wSize(g)]
		clear(dw)
		for n := shard * s.Size; n < min(g.N, (shard+1)*s.Size); n++ {
			eachTap(g, n, func(yi, xi, tap int) {
				row := dy[yi*g.Cout : (yi+1)*g.Cout]
				for c := range g.Cin {
					v, sums := x[xi*g.Cin+c], dw[(tap*g.Cin+c)*g.Cout:]
					for o := range row {
						sums[o] += v * row[o]
					}
				}
			})
		}
	}
}

// factors is v as a matrix product takes it: TF32 leaves out the last 13 bits of a float32.
func factors(b *Builder, v []float64) []float64 {
	if b.Precision() != kernels.TF32 {
		return v
	}
	cut := make([]float64, len(v))
	for i, x := range v {
		cut[i] = float64(math.Float32frombits(math.Float32bits(float32(x)) &^ 0x1fff))
	}
	return cut
}

// parts is what of an Epilogue a case has.
type parts struct{ bias, perImage, residual, scale, silu, pre, stats bool }

func (p parts) String() string {
	text := ""
	for _, part := range []struct {
		has  bool
		name string
	}{{p.bias, " +bias"}, {p.perImage, " +image"}, {p.residual, " +residual"}, {p.scale, " ·scale"}, {p.silu, " silu"}, {p.pre, " pre"}, {p.stats, " stats"}} {
		if part.has {
			text += part.name
		}
	}
	return text
}

// epilogue makes the inputs and outputs of an epilogue over products of n images, `pixels` each, c channels, of which product is the reference:
// y is what the launch must write, e its epilogue, from the epilogue of a launch that begins with a later image. Statistics are of `tiles` tiles
// an image, 0 for none.
func epilogue(b *Builder, p parts, n, pixels, c, tiles int, product func() []float64) (y gpu.Ptr, e kernels.Epilogue, from func(image int) kernels.Epilogue) {
	var bias, perImage, residual []float64
	scale := 1.0
	if p.bias {
		bias = b.Normal(c)
		e.Bias = b.InAcc(bias)
	}
	if p.perImage {
		e.PerImageStride = c + 16
		perImage = b.Normal(n * e.PerImageStride)
		e.PerImage = b.In(perImage)
	}
	if p.residual {
		residual = b.Normal(n * pixels * c)
		e.Residual = b.In(residual)
	}
	if p.scale {
		scale = b.Round(0.5 + b.Rand().Float64())
		e.Scale = scale
	}
	pre := b.Want(n*pixels*c, func() []float64 {
		v := product()
		for i := range v {
			image, channel := i/(pixels*c), i%c
			if p.bias {
				v[i] += bias[channel]
			}
			if p.perImage {
				v[i] += perImage[image*e.PerImageStride+channel]
			}
			if p.residual {
				v[i] += residual[i]
			}
			v[i] *= scale
		}
		return v
	})
	want := pre
	if p.silu {
		e.SiLU = true
		want = make([]float64, len(pre))
		for i, v := range pre {
			want[i] = v / (1 + math.Exp(-v))
		}
	}
	if p.pre {
		e.Pre = b.Out("pre", pre)
	}
	if p.stats && tiles > 0 {
		e.Stats = b.OutAcc("stats", moments(want, n*tiles, pixels/tiles, c))
	}
	from = func(image int) kernels.Epilogue {
		later := e
		later.PerImage = b.Offset(e.PerImage, image*e.PerImageStride)
		later.Residual = b.Offset(e.Residual, image*pixels*c)
		later.Pre = b.Offset(e.Pre, image*pixels*c)
		later.Stats = b.Offset(e.Stats, image*tiles*c*2)
		return later
	}
	return b.Out("y", want), e, from
}

// moments is the mean and the sum of squared distances from it of c channels of `parts` consecutive groups of rows.
func moments(y []float64, parts, rows, c int) []float64 {
	m := make([]float64, parts*c*2)
	for i := range parts * c {
		part, channel := i/c, i%c
		var mean, squares float64
		for r := range rows {
			mean += y[(part*rows+r)*c+channel] / float64(rows)
		}
		for r := range rows {
			d := y[(part*rows+r)*c+channel] - mean
			squares += d * d
		}
		m[2*i], m[2*i+1] = mean, squares
	}
	return m
}

// convWeights draws weights; for statistics so small that the mean of a channel and the sum of squares are of one size, and an error in either shows.
func convWeights(b *Builder, g kernels.Conv, p parts) []float64 {
	w := b.Normal(wSize(g))
	if p.stats {
		for i := range w {
			w[i] = b.Round(w[i] / math.Sqrt(float64(g.KH*g.KW*g.Cin*g.OH*g.OW)))
		}
	}
	return w
}

func convForwardCase(g kernels.Conv, p parts) Case {
	return Case{Shape: convShape(g) + p.String(), Bytes: convBytes(g), FLOPs: g.FLOPs(), Build: func(b *Builder) {
		x, w := b.Normal(xSize(g)), convWeights(b, g, p)
		y, e, from := epilogue(b, p, g.N, g.OH*g.OW, g.Cout, b.queue.ConvStatTiles(g), func() []float64 {
			return convForward(g, factors(b, x), factors(b, w))
		})
		xp, wp := b.In(x), b.In(w)
		b.Launch(func(q *kernels.Queue) { q.ConvForward(g, y, xp, wp, e) })
		if half := g.N / 2; half > 0 {
			b.Again("in two launches", func(q *kernels.Queue) {
				first, rest := images(g, half), images(g, g.N-half)
				q.ConvForward(first, y, xp, wp, e)
				q.ConvForward(rest, b.Offset(y, ySize(first)), b.Offset(xp, xSize(first)), wp, from(half))
			})
		}
	}}
}

func convBackwardDataCase(g kernels.Conv, p parts) Case {
	return Case{Shape: convShape(g) + p.String(), Bytes: convBytes(g), FLOPs: g.FLOPs(), Build: func(b *Builder) {
		dy, w := b.Normal(ySize(g)), b.Normal(wSize(g))
		dx, e, from := epilogue(b, p, g.N, g.H*g.W, g.Cin, 0, func() []float64 {
			return convBackwardData(g, factors(b, dy), factors(b, w))
		})
		dyp, wp := b.In(dy), b.In(w)
		b.Launch(func(q *kernels.Queue) { q.ConvBackwardData(g, dx, dyp, wp, e) })
		if half := g.N / 2; half > 0 {
			b.Again("in two launches", func(q *kernels.Queue) {
				first, rest := images(g, half), images(g, g.N-half)
				q.ConvBackwardData(first, dx, dyp, wp, e)
				q.ConvBackwardData(rest, b.Offset(dx, xSize(first)), b.Offset(dyp, ySize(first)), wp, from(half))
			})
		}
	}}
}

// shardsOf is a division of n images of which the last shards are short or empty where n allows it.
func shardsOf(n int) []kernels.Shards {
	if n <= 2 {
		return []kernels.Shards{{Count: 2, Size: 1}}
	}
	return []kernels.Shards{{Count: 4, Size: (n + 2) / 3}, {Count: 2, Size: n/2 + 1}}
}

// halves calls launch for the first half of the shards and for the rest: with the shards, the images before them and their own.
func halves(s kernels.Shards, n int, launch func(first int, s kernels.Shards, before, n int)) {
	half := s.Count / 2
	before := min(n, half*s.Size)
	launch(0, kernels.Shards{Count: half, Size: s.Size}, 0, before)
	launch(half, kernels.Shards{Count: s.Count - half, Size: s.Size}, before, n-before)
}

// convBackwardWeightCase is summed as the network's are.
func convBackwardWeightCase(g kernels.Conv, s kernels.Shards) Case {
	return cutWeightCase(g, s, "", func(p kernels.Precision) kernels.Segments { return g.WeightSegments(s.Size, p) })
}

// segmentsCase is summed in given segments.
func segmentsCase(g kernels.Conv, s kernels.Shards, cut kernels.Segments) Case {
	shape := fmt.Sprintf(", from row %d in %d segments of %d", cut.Row, cut.Count, cut.Length)
	return cutWeightCase(g, s, shape, func(kernels.Precision) kernels.Segments { return cut })
}

func cutWeightCase(g kernels.Conv, s kernels.Shards, shape string, cutOf func(p kernels.Precision) kernels.Segments) Case {
	shape = fmt.Sprintf("%s in %d shards of %d%s", convShape(g), s.Count, s.Size, shape)
	bytes := convBytes(g) + 4*float64((s.Count-1)*wSize(g))
	return Case{Shape: shape, Bytes: bytes, FLOPs: g.FLOPs(), Build: func(b *Builder) {
		x, dy := b.Normal(xSize(g)), b.Normal(ySize(g))
		stride := (wSize(g) + 31) / 16 * 16
		partial := b.OutAcc("partial", b.Want(s.Count*stride, func() []float64 {
			want := untouched(s.Count * stride)
			convBackwardWeight(g, s, want, stride, factors(b, dy), factors(b, x))
			return want
		}))
		xp, dyp := b.In(x), b.In(dy)
		cut := cutOf(b.Precision())
		work := gpu.Ptr(0)
		if sums := cut.Work(g, s.Count); sums > 0 {
			work = b.Scratch(int(sums))
		}
		b.Launch(func(q *kernels.Queue) { q.ConvBackwardWeight(g, s, cut, partial, int64(stride), work, dyp, xp) })
		b.Again("in two launches of half of the shards", func(q *kernels.Queue) {
			halves(s, g.N, func(first int, s kernels.Shards, before, n int) {
				skip := images(g, before)
				at := func(p gpu.Ptr, size int) gpu.Ptr { return b.Offset(p, size) }
				q.ConvBackwardWeight(images(g, n), s, cut, at(partial, first*stride), int64(stride), work, at(dyp, ySize(skip)), at(xp, xSize(skip)))
			})
		})
	}}
}

// segmentCases cut shards into segments that end within an image, within a step, behind the last pixel; all rows and the last ones; short shards and
// empty ones; in tiles of all sizes, kernels, strides and paddings.
var segmentCases = []struct {
	g   kernels.Conv
	s   kernels.Shards
	cut kernels.Segments
}{
	{conv(5, 7, 9, 3, 17, 3, 3, 1, one), kernels.Shards{Count: 4, Size: 2}, kernels.Segments{Count: 3, Length: 50}},
	{conv(3, 6, 5, 16, 3, 3, 3, 1, one), kernels.Shards{Count: 2, Size: 2}, kernels.Segments{Count: 4, Length: 17}},
	{conv(3, 5, 7, 48, 40, 3, 3, 1, one), kernels.Shards{Count: 2, Size: 2}, kernels.Segments{Row: 256, Count: 2, Length: 37}},
	{conv(2, 5, 7, 40, 40, 3, 3, 1, one), kernels.Shards{Count: 2, Size: 1}, kernels.Segments{Row: 128, Count: 3, Length: 12}},
	{conv(3, 9, 7, 17, 5, 3, 3, 2, rightBottom), kernels.Shards{Count: 4, Size: 1}, kernels.Segments{Row: 128, Count: 5, Length: 3}},
	{conv(2, 4, 6, 64, 24, 5, 3, 1, [4]int{2, 1, 2, 1}), kernels.Shards{Count: 1, Size: 2}, kernels.Segments{Row: 896, Count: 2, Length: 24}},
	{conv(2, 4, 3, 96, 136, 3, 3, 1, one), kernels.Shards{Count: 2, Size: 1}, kernels.Segments{Row: 768, Count: 2, Length: 7}},
	{conv(3, 3, 4, 128, 128, 3, 3, 1, one), kernels.Shards{Count: 2, Size: 2}, kernels.Segments{Row: 1024, Count: 3, Length: 8}},
	{conv(2, 3, 3, 128, 64, 3, 3, 1, one), kernels.Shards{Count: 2, Size: 1}, kernels.Segments{Count: 2, Length: 8}},
	{conv(2, 5, 4, 130, 66, 1, 1, 1, none), kernels.Shards{Count: 2, Size: 1}, kernels.Segments{Row: 128, Count: 4, Length: 6}},
	{kernels.Linear(7, 160, 18), kernels.Shards{Count: 2, Size: 4}, kernels.Segments{Row: 128, Count: 3, Length: 2}},
}

// epilogues are the parts that layers combine, and all of them.
var epilogues = []parts{
	{bias: true}, {bias: true, perImage: true}, {residual: true, scale: true}, {bias: true, perImage: true, residual: true, scale: true},
	{bias: true, silu: true}, {bias: true, residual: true, scale: true, silu: true, pre: true},
}

// epilogueShapes have one product for each entry: tiles large and narrow, channels aligned and not, a stride.
var epilogueShapes = []kernels.Conv{
	conv(3, 7, 5, 48, 48, 3, 3, 1, one),
	conv(3, 5, 7, 37, 37, 3, 3, 1, one),
	conv(2, 7, 5, 16, 16, 3, 3, 1, one),
	conv(3, 5, 7, 3, 3, 3, 3, 1, one),
	conv(2, 8, 6, 16, 16, 3, 3, 2, rightBottom),
	conv(3, 7, 8, 48, 48, 3, 3, 1, one),
	kernels.Linear(7, 32, 48),
	conv(3, 7, 6, 64, 64, 3, 3, 1, one),
	conv(2, 11, 9, 32, 32, 3, 3, 1, one),
	conv(1, 10, 9, 64, 96, 1, 1, 1, none),
	conv(1, 10, 9, 96, 64, 3, 3, 1, one),
}

func convOps() []Op {
	var forward, data, weight, transpose []Case
	for _, g := range slices.Concat(convShapes, linearShapes) {
		forward = append(forward, convForwardCase(g, parts{}))
		data = append(data, convBackwardDataCase(g, parts{}))
		for _, s := range shardsOf(g.N) {
			weight = append(weight, convBackwardWeightCase(g, s))
		}
	}
	large := func(c Case) Case {
		c.Large = true
		return c
	}
	for _, g := range mixedShapes(false) {
		forward = append(forward, large(convForwardCase(g, parts{})))
		weight = append(weight, large(convBackwardWeightCase(g, shardsOf(g.N)[0])))
	}
	for _, g := range mixedShapes(true) {
		data = append(data, large(convBackwardDataCase(g, parts{})))
	}
	// More images than the shapes above, so that shards are of one image, short, or empty.
	for _, s := range []kernels.Shards{{Count: 8, Size: 1}, {Count: 4, Size: 2}, {Count: 4, Size: 3}, {Count: 1, Size: 8}} {
		weight = append(weight, convBackwardWeightCase(conv(7, 4, 3, 16, 48, 3, 3, 1, one), s))
		weight = append(weight, convBackwardWeightCase(conv(7, 3, 5, 3, 5, 3, 3, 2, rightBottom), s))
	}
	// More than six tiles of 128×128: large tiles on tensor cores, and medium ones.
	weight = append(weight,
		convBackwardWeightCase(conv(2, 4, 3, 96, 128, 3, 3, 1, one), kernels.Shards{Count: 2, Size: 1}),
		convBackwardWeightCase(conv(2, 3, 4, 128, 128, 3, 3, 1, one), kernels.Shards{Count: 1, Size: 2}),
		convBackwardWeightCase(conv(1, 3, 3, 128, 64, 3, 3, 1, one), kernels.Shards{Count: 1, Size: 1}))
	// Shards of tiles enough for the host's Winograd: edges of tiles, more channels than a block has, a short shard and an empty one.
	weight = append(weight,
		convBackwardWeightCase(conv(5, 12, 9, 32, 48, 3, 3, 1, one), kernels.Shards{Count: 2, Size: 3}),
		convBackwardWeightCase(conv(3, 11, 13, 96, 64, 3, 3, 1, one), kernels.Shards{Count: 4, Size: 2}),
		convBackwardWeightCase(conv(4, 9, 17, 16, 144, 3, 3, 1, none), kernels.Shards{Count: 1, Size: 4}),
		convBackwardWeightCase(conv(8, 28, 28, 32, 32, 3, 3, 1, one), kernels.Shards{Count: 1, Size: 8}))
	for _, c := range segmentCases {
		weight = append(weight, segmentsCase(c.g, c.s, c.cut))
	}
	// Shards of pixels enough that they are cut on tensor cores: of a first convolution, of a last one, of one between.
	weight = append(weight,
		large(convBackwardWeightCase(conv(5, 46, 45, 3, 24, 3, 3, 1, one), kernels.Shards{Count: 4, Size: 2})),
		large(convBackwardWeightCase(conv(3, 46, 45, 24, 3, 3, 3, 1, one), kernels.Shards{Count: 2, Size: 2})),
		large(convBackwardWeightCase(conv(3, 40, 39, 24, 24, 3, 3, 1, one), kernels.Shards{Count: 2, Size: 2})))
	for _, g := range epilogueShapes {
		for _, p := range epilogues {
			forward = append(forward, convForwardCase(g, p))
			transpose = append(transpose, convBackwardDataCase(g, p))
		}
	}
	// Statistics of tiles that are parts of an image, whole images, several images; of a batch that fills no tile.
	for _, g := range []kernels.Conv{
		conv(2, 16, 8, 32, 40, 3, 3, 1, one), conv(1, 16, 16, 32, 72, 3, 3, 1, one), conv(3, 8, 8, 64, 40, 3, 3, 1, one),
		conv(3, 8, 8, 64, 72, 1, 1, 1, none), conv(5, 4, 4, 64, 136, 3, 3, 1, one), conv(2, 16, 8, 32, 104, 3, 3, 1, one),
		conv(3, 8, 8, 64, 64, 3, 3, 2, one), conv(2, 16, 8, 3, 17, 3, 3, 1, one), conv(2, 16, 8, 32, 24, 3, 3, 1, one),
	} {
		for _, p := range []parts{{bias: true, stats: true}, {bias: true, perImage: true, residual: true, scale: true, stats: true}} {
			forward = append(forward, convForwardCase(g, p))
		}
	}
	// More than 64 of 128 columns and more than 64 pixels: the largest tile of the data gradient on tensor cores.
	data = append(data, convBackwardDataCase(conv(1, 9, 9, 104, 24, 3, 3, 1, one), parts{}), convBackwardDataCase(conv(2, 8, 9, 232, 40, 1, 1, 1, none), parts{residual: true}))
	// ScoreNet's way back: strides 1 and 2, an output padding of 0 and 1, which is one more row and column of x that no output sees.
	for _, g := range []kernels.Conv{
		conv(2, 9, 9, 3, 16, 3, 3, 2, none), conv(2, 10, 10, 16, 48, 3, 3, 2, none), conv(2, 8, 8, 1, 32, 3, 3, 1, none),
		conv(1, 8, 10, 4, 6, 4, 4, 2, one),
	} {
		transpose = append(transpose, convBackwardDataCase(g, parts{bias: true}))
	}
	var benchForward, benchData, benchWeight []Case
	for _, g := range networkConvs() {
		benchForward = append(benchForward, convForwardCase(g, parts{bias: true}))
		benchData = append(benchData, convBackwardDataCase(g, parts{}))
		benchWeight = append(benchWeight, convBackwardWeightCase(g, kernels.Shards{Count: 8, Size: g.N / 8}))
	}
	return []Op{
		{Name: "conv_forward", Cases: forward, Bench: benchForward},
		{Name: "conv_backward_data", Cases: data, Bench: benchData},
		{Name: "conv_backward_weight", Cases: weight, Bench: benchWeight},
		{Name: "conv_transpose", Cases: transpose},
	}
}

// networkConvs are the convolutions and linear layers of the quickstart network at batch 32, and of cifar10-ddpm at batch 16.
func networkConvs() []kernels.Conv {
	const small, large = 32, 16
	return []kernels.Conv{
		conv(small, 28, 28, 1, 32, 3, 3, 1, one),
		conv(small, 28, 28, 32, 32, 3, 3, 1, one),
		conv(small, 28, 28, 64, 32, 3, 3, 1, one),
		conv(small, 28, 28, 64, 32, 1, 1, 1, none),
		conv(small, 28, 28, 32, 32, 3, 3, 2, one),
		conv(small, 28, 28, 32, 1, 3, 3, 1, one),
		conv(small, 14, 14, 32, 32, 3, 3, 1, one),
		conv(small, 7, 7, 64, 64, 3, 3, 1, one),
		kernels.Linear(small, 128, 64),
		conv(large, 32, 32, 3, 128, 3, 3, 1, one),
		conv(large, 32, 32, 128, 128, 3, 3, 1, one),
		conv(large, 32, 32, 256, 128, 3, 3, 1, one),
		conv(large, 32, 32, 128, 128, 3, 3, 2, rightBottom),
		conv(large, 32, 32, 128, 3, 3, 3, 1, one),
		conv(large, 16, 16, 256, 256, 3, 3, 1, one),
		conv(large, 16, 16, 512, 256, 3, 3, 1, one),
		conv(large, 16, 16, 256, 256, 1, 1, 1, none),
		conv(large, 4, 4, 256, 256, 3, 3, 1, one),
		kernels.Linear(large, 512, 512),
	}
}
