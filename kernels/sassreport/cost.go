package main

import (
	"fmt"
	"strings"
)

// A cost is what a launch must do, from its shape: the least bytes of DRAM, the arithmetic, and, for matrix products, the arithmetic with
// what tiles waste at the edges.
type cost struct {
	Bytes, FLOPs, Padded float64
	Kind                 string // of layer
	Shape                string // of a convolution: taps, channels, image
	Side                 int    // of a convolution's output image, pixels
	Guessed              bool   // no formula: bytes from the machine code
	// Runs are the blocks in the order in which they start, where not all have the same arithmetic.
	Runs []blockRun
	// Missed is how much of what a convolution loads through the first-level cache is not there: each pixel once for all taps.
	Missed float64
}

// A blockRun is blocks with the same arithmetic each, with what tiles waste.
type blockRun struct {
	Blocks int
	Padded float64
}

const accBytes = 4 // of sums, parameters, gradients of parameters

// costOf knows the kernels' arguments (the declarations in package kernels) by their number; what it does not know is guessed by the caller.
func costOf(l launch, geometry []int, real float64) (cost, bool) {
	switch name := l.Kernel; {
	case strings.HasPrefix(name, "conv_"):
		return convCost(l, geometry, real)
	case strings.HasPrefix(name, "attention_"):
		return attentionCost(l, geometry, real)
	case strings.HasPrefix(name, "groupnorm_"):
		return normCost(l, real)
	}
	f, known := elementCosts[l.Kernel]
	if !known || len(l.Args) != f.args || len(geometry) < 1 {
		return cost{}, false
	}
	return cost{Bytes: f.bytes(l, geometry, real), Kind: f.kind}, true
}

// convArgs are the numbers that end a convolution's arguments: kernels.Conv.
type convArgs struct{ N, H, W, Cin, Cout, KH, KW, Stride, Top, Left, OH, OW int }

// How many arguments the convolutions have: those that write pixels, and the weight gradient.
const pixelArgs, weightArgs = 23, 21

// convCost: operands and output once, a residual where there is one, and what SiLU is taken of where that is kept. Vectors that an epilogue adds
// are left out, and statistics.
func convCost(l launch, geometry []int, real float64) (cost, bool) {
	weight := strings.HasPrefix(l.Kernel, "conv_backward_weight")
	if len(geometry) < 3 || len(l.Args) != pixelArgs && !weight || len(l.Args) != weightArgs && weight {
		return cost{}, false
	}
	a := l.tail(12)
	c := convArgs{a[0], a[1], a[2], a[3], a[4], a[5], a[6], a[7], a[8], a[9], a[10], a[11]}
	size := c.N // of the weight gradient: images of a shard
	if weight {
		c.N = l.tail(13)[0]
	}
	taps := float64(c.KH * c.KW)
	x, y := float64(c.N*c.H*c.W*c.Cin), float64(c.N*c.OH*c.OW*c.Cout)
	w := taps * float64(c.Cin*c.Cout)
	out := cost{FLOPs: 2 * y * taps * float64(c.Cin), Side: c.OH}
	out.Shape = fmt.Sprintf("%dx%d %4d ->%4d at %2dx%-2d", c.KH, c.KW, c.Cin, c.Cout, c.OH, c.OW)
	if c.Stride > 1 {
		out.Shape += fmt.Sprintf(" /%d", c.Stride)
	}
	tiles := float64(l.Grid[0]) * float64(l.Grid[1]) * float64(geometry[1]) * float64(geometry[2])
	out.Missed = c.missed(geometry[1])
	pass := "forward"
	switch {
	case weight:
		pass = "d weight"
		out.Bytes = (x + y) * real
		c.sums(&out, l, size, geometry)
	case strings.HasPrefix(l.Kernel, "conv_backward_data"):
		pass = "d input"
		out.Bytes = (x + y + w) * real
		out.Padded = 2 * tiles * taps * float64(c.Cout)
		out.Bytes += (l.Args[5] + l.Args[8]) * x * real
	default:
		out.Bytes = (x + y + w) * real
		out.Padded = 2 * tiles * taps * float64(c.Cin)
		out.Bytes += (l.Args[5] + l.Args[8]) * y * real
	}
	switch {
	case c.H*c.W == 1:
		out.Kind = "linear, " + pass
	case c.KH*c.KW == 1:
		out.Kind = fmt.Sprintf("conv 1x1 at %2dx%-2d, %s", c.OH, c.OW, pass)
	default:
		out.Kind = fmt.Sprintf("conv %dx%d at %2dx%-2d, %s", c.KH, c.KW, c.OH, c.OW, pass)
	}
	return out, true
}

// sums adds what a weight gradient writes and computes: rows of weights from the sixth argument on in segments, of which the seventh is the number
// and the eighth the length, others over all pixels of a shard of `size` images; blocks of these come first.
func (c convArgs) sums(out *cost, l launch, size int, geometry []int) {
	row, count, length := int(l.Args[5]), int(l.Args[6]), int(l.Args[7])
	rows := c.KH * c.KW * c.Cin
	if count == 0 {
		row = rows
	}
	columns := (c.Cout + geometry[2] - 1) / geometry[2]
	tiles := func(rows int) int { return (rows + geometry[1] - 1) / geometry[1] * columns }
	shards := float64((c.N + size - 1) / size)
	out.Bytes += shards * float64(c.Cout) * float64(row+(rows-row)*count) * accBytes
	pixels := float64(c.OH * c.OW)
	area := 2 * float64(geometry[1]*geometry[2])
	out.Padded = area * float64(tiles(rows)*c.N) * pixels
	if count == 0 {
		return
	}
	launched := l.blocks() / (tiles(row) + tiles(rows-row)*count)
	out.Runs = []blockRun{{launched * tiles(row), area * float64(min(size, c.N)) * pixels}, {launched * tiles(rows-row) * count, area * float64(length)}}
}

// missed is the pixels that a tile of so many output pixels sees, as a share of the pixels that its taps load.
func (c convArgs) missed(tile int) float64 {
	rows, width := c.H, c.W
	if pixels := c.OH * c.OW; tile < pixels && tile >= c.OW {
		rows = min(c.H, (tile/c.OW-1)*c.Stride+c.KH)
	} else if tile < c.OW {
		rows, width = c.KH, min(c.W, (tile-1)*c.Stride+c.KW)
	} else {
		tile = pixels // of one image: the others are like it
	}
	return min(1, float64(rows*width)/float64(tile*c.KH*c.KW))
}

// attentionCost: queries, keys, values, outputs and their gradients once. The forward pass has two products of L×L×Dim, the backward pass
// three in the kernel of queries and four in that of keys and values.
func attentionCost(l launch, geometry []int, real float64) (cost, bool) {
	if len(geometry) < 2 || len(l.Args) < 9 {
		return cost{}, false
	}
	a := l.tail(4)
	length, heads, dim := a[0], a[1], a[2]
	groups := (length + geometry[1] - 1) / geometry[1]
	images := float64(l.blocks() / (heads * groups))
	tensors, products := 4.0, 2.0
	switch {
	case strings.HasPrefix(l.Kernel, "attention_backward_query"):
		tensors, products = 6, 3
	case strings.HasPrefix(l.Kernel, "attention_backward_key_value"):
		tensors, products = 6, 4
	}
	c := cost{Kind: "attention, forward"}
	if strings.HasPrefix(l.Kernel, "attention_backward") {
		c.Kind = "attention, backward"
	}
	rows := images * float64(heads*length)
	c.Bytes = tensors * rows * float64(dim) * real
	c.FLOPs = 2 * products * rows * float64(length) * float64(dim)
	c.Padded = c.FLOPs * float64(groups*geometry[1]) / float64(length)
	return c, true
}

// normCost: the input and the output once, backward also the output's gradient; what is read, twice where a block does not keep it, unless the
// forward pass gets its statistics from a convolution.
func normCost(l launch, real float64) (cost, bool) {
	name, dropout := strings.CutSuffix(l.Kernel, "_dropout")
	args := map[string]int{"groupnorm_forward": 16, "groupnorm_backward": 20}[name]
	if dropout {
		args += 4
	}
	if len(l.Args) != args {
		return cost{}, false
	}
	var at int // of HW, C, groups, channels of a block, and whether it keeps them, among the arguments
	var reads float64
	switch name {
	case "groupnorm_forward":
		at, reads = 9, 1
		if l.Args[13] == 0 && l.Args[2] == 0 {
			reads = 2
		}
	case "groupnorm_backward":
		at, reads = 14, 2
		if l.Args[18] == 0 {
			reads = 4
		}
	default:
		return cost{}, false
	}
	pixels, channels, per := l.Args[at], l.Args[at+1], l.Args[at+3]
	chunks := int(channels+per-1) / int(per)
	images := float64(l.blocks() / chunks)
	return cost{Bytes: (reads + 1) * images * pixels * channels * real, Kind: "group norm"}, true
}

// elementCost is a kernel that moves bytes and computes little.
type elementCost struct {
	kind  string
	args  int // of the launch
	bytes func(l launch, geometry []int, real float64) float64
}

// reals is a kernel over the elements that argument i counts, which moves so many reals for each.
func reals(kind string, args, i int, each float64) elementCost {
	return elementCost{kind, args, func(l launch, _ []int, real float64) float64 { return each * l.Args[i] * real }}
}

// pixels is a kernel over images [n][h][w][c] in the last four arguments, which moves so many reals for each of their values.
func pixels(kind string, each float64) elementCost {
	return elementCost{kind, 6, func(l launch, _ []int, real float64) float64 {
		a := l.Args[2:]
		return each * a[0] * a[1] * a[2] * a[3] * real
	}}
}

// perBlock is a kernel whose blocks each have geometry[1] values, which moves so many reals for each.
func perBlock(kind string, args int, each float64) elementCost {
	return elementCost{kind, args, func(l launch, g []int, real float64) float64 {
		return each * float64(l.blocks()) * float64(g[1]) * real
	}}
}

func concat(args int) elementCost {
	return elementCost{"concatenation", args, func(l launch, _ []int, real float64) float64 { return 2 * l.Args[3] * (l.Args[4] + l.Args[5]) * real }}
}

var elementCosts = map[string]elementCost{
	"add":                reals("sums of gradients", 4, 3, 3),
	"scale":              reals("activation", 4, 2, 2),
	"silu_forward":       reals("activation", 3, 2, 2),
	"silu_backward":      reals("activation", 4, 3, 3),
	"concat_forward":     concat(6),
	"concat_backward":    concat(6),
	"upsample2_forward":  pixels("resampling", 5),
	"upsample2_backward": pixels("resampling", 5),
	"avgpool2_forward":   pixels("resampling", 1.25),
	"avgpool2_backward":  pixels("resampling", 1.25),
	"noise_add":          perBlock("noise and loss", 12, 1.25),
	"loss": {"noise and loss", 14, func(l launch, _ []int, real float64) float64 {
		return 2.25 * float64(l.blocks()) * l.lossValues() * real
	}},
	"timestep_embedding": {"time embedding", 6, func(l launch, _ []int, real float64) float64 { return l.Args[3] * l.Args[4] * real }},
	"pixel_sum": {"bias and time gradients", 6, func(l launch, g []int, real float64) float64 {
		chunks := (int(l.Args[5]) + g[1] - 1) / g[1]
		return float64(l.blocks()/chunks) * l.Args[4] * l.Args[5] * real
	}},
	"shard_sum":       {"bias and time gradients", 7, shardBytes},
	"shard_sum_reals": {"bias and time gradients", 7, shardBytes},
	"tree_sum":        {"tree of shards", 5, func(l launch, _ []int, _ float64) float64 { return (l.Args[3] + 1) * l.Args[4] * accBytes }},
	"square_sum":      {"update", 4, func(l launch, _ []int, _ float64) float64 { return l.Args[2] * accBytes }},
	"grad_norm":       {"update", 3, func(l launch, _ []int, _ float64) float64 { return l.Args[2] * accBytes }},
	// Five arenas read, four written, and the rounded copy where there is one.
	"adam": {"update", 16, func(l launch, _ []int, real float64) float64 { return l.Args[8] * (9*accBytes + l.Args[4]*real) }},
}

// shardBytes: rows of all images, and a row of each shard.
func shardBytes(l launch, _ []int, _ float64) float64 {
	return (l.Args[4] + l.Args[4]/l.Args[5]) * l.Args[6] * accBytes
}

// lossValues is the values of an image: height, width and channels end the arguments but for two.
func (l launch) lossValues() float64 {
	n := len(l.Args)
	return l.Args[n-5] * l.Args[n-4] * l.Args[n-3]
}
