package selftest

import (
	"fmt"
	"math"

	"ddgpu/gpu"
	"ddgpu/kernels"
)

// normCase is a group normalisation with what is fused into it.
type normCase struct {
	kernels.Norm
	scaleShift bool
	tiles      int     // the statistics come from so many tiles of each image; 0: from x
	drop       float64 // probability of dropout; negative: there is none
	site       int
}

// plainNorm is a case without anything fused but SiLU.
func plainNorm(n kernels.Norm) normCase { return normCase{Norm: n, drop: -1} }

// dropped is the same with dropout.
func (c normCase) dropped(p float64, site int) normCase {
	c.drop, c.site = p, site
	return c
}

func (c normCase) String() string {
	text := fmt.Sprintf("%d×%d×%d g%d", c.N, c.HW, c.C, c.Groups)
	if c.SiLU {
		text += " silu"
	}
	if c.scaleShift {
		text += " scale-shift"
	}
	if c.tiles > 0 {
		text += fmt.Sprintf(" %d tiles", c.tiles)
	}
	if c.drop >= 0 {
		text += fmt.Sprintf(" dropout %g, site %d", c.drop, c.site)
	}
	return text
}

func (c normCase) size() int   { return c.N * c.HW * c.C }
func (c normCase) stride() int { return 2*c.C + 16 }

// images is the same normalisation over n images.
func (c normCase) images(n int) kernels.Norm {
	g := c.Norm
	g.N = n
	return g
}

func sigmoid(x float64) float64 { return 1 / (1 + math.Exp(-x)) }

// normInputs are the inputs of a case. The mean of x is far from 0, which a variance computed as E[x²] − E[x]² does not survive.
type normInputs struct {
	x, gamma, beta, scaleShift, dy []float64
	mask                           []float64 // what dropout multiplies by
	dropout                        kernels.Dropout
}

func (c normCase) inputs(b *Builder) normInputs {
	in := normInputs{x: b.Normal(c.size()), gamma: b.Normal(c.C), beta: b.Normal(c.C), dy: b.Normal(c.size())}
	for i := range in.x {
		in.x[i] = b.Round(4 + 1.5*in.x[i])
	}
	for i := range in.gamma {
		in.gamma[i] = b.Round(1 + 0.5*in.gamma[i])
	}
	if c.scaleShift {
		in.scaleShift = b.Normal(c.N * c.stride())
	}
	in.mask = make([]float64, c.size())
	for i := range in.mask {
		in.mask[i] = 1
	}
	if c.drop < 0 {
		return in
	}
	s, offset, perImage := b.state(1<<40), b.rng.IntN(1000), c.HW*c.C
	in.dropout = kernels.Dropout{Site: c.site, P: c.drop, State: b.inState(s), Offset: int64(offset)}
	if b.timing {
		return in
	}
	for n := range c.N {
		stream := kernels.Stream{Seed: s.Seed, Purpose: kernels.DrawDropout + kernels.Purpose(c.site), Image: s.First + uint64(offset+n), Step: s.Step}
		for e := range perImage {
			in.mask[n*perImage+e] = 1 / (1 - c.drop)
			if r := stream.Block(uint32(e / 4))[e%4]; float64(r) < c.drop*(1<<32) {
				in.mask[n*perImage+e] = 0
			}
		}
	}
	return in
}

// from is the dropout of the images from number n on.
func from(d kernels.Dropout, n int) kernels.Dropout {
	d.Offset += int64(n)
	return d
}

// affine is g and b of v = xhat·g + b for a channel of an image, and 1 + scale.
func (c normCase) affine(in normInputs, n, channel int) (g, b, scale1 float64) {
	g, b, scale1 = in.gamma[channel], in.beta[channel], 1
	if c.scaleShift {
		scale1 += in.scaleShift[n*c.stride()+channel]
		g, b = g*scale1, b*scale1+in.scaleShift[n*c.stride()+c.C+channel]
	}
	return g, b, scale1
}

// group calls f with the index in x and the channel of every value of a group of an image.
func (c normCase) group(n, group int, f func(i, channel int)) {
	width := c.C / c.Groups
	for p := range c.HW {
		for k := group * width; k < (group+1)*width; k++ {
			f((n*c.HW+p)*c.C+k, k)
		}
	}
}

// stats is mean and rstd of each group, [N][Groups][2].
func (c normCase) stats(x []float64) []float64 {
	stats := make([]float64, c.N*c.Groups*2)
	m := float64(c.HW * c.C / c.Groups)
	for n := range c.N {
		for group := range c.Groups {
			var sum, squares float64
			c.group(n, group, func(i, _ int) { sum += x[i] })
			mean := sum / m
			c.group(n, group, func(i, _ int) { squares += (x[i] - mean) * (x[i] - mean) })
			at := (n*c.Groups + group) * 2
			stats[at], stats[at+1] = mean, 1/math.Sqrt(squares/m+c.Eps)
		}
	}
	return stats
}

func (c normCase) forward(in normInputs) []float64 {
	y, stats := make([]float64, c.size()), c.stats(in.x)
	for n := range c.N {
		for group := range c.Groups {
			s := stats[(n*c.Groups+group)*2:]
			c.group(n, group, func(i, channel int) {
				g, b, _ := c.affine(in, n, channel)
				v := (in.x[i]-s[0])*s[1]*g + b
				if c.SiLU {
					v *= sigmoid(v)
				}
				y[i] = v * in.mask[i]
			})
		}
	}
	return y
}

// backward follows the header of groupnorm.cu.
func (c normCase) backward(in normInputs) (dx, dGammaBeta, dScaleShift, pixels []float64) {
	pixels = make([]float64, c.N*c.C)
	dx, dGammaBeta, dScaleShift = make([]float64, c.size()), make([]float64, c.N*2*c.C), untouched(c.N*c.stride())
	stats, dv := c.stats(in.x), make([]float64, c.size())
	m := float64(c.HW * c.C / c.Groups)
	for n := range c.N {
		sumA, sumB := make([]float64, c.C), make([]float64, c.C)
		for group := range c.Groups {
			s := stats[(n*c.Groups+group)*2:]
			var meanA, meanB float64
			c.group(n, group, func(i, channel int) {
				g, b, _ := c.affine(in, n, channel)
				xhat := (in.x[i] - s[0]) * s[1]
				dv[i] = in.dy[i] * in.mask[i]
				if v := xhat*g + b; c.SiLU {
					dv[i] *= sigmoid(v) * (1 + v*(1-sigmoid(v)))
				}
				sumA[channel] += dv[i] * xhat
				sumB[channel] += dv[i]
				meanA += dv[i] * g * xhat / m
				meanB += dv[i] * g / m
			})
			c.group(n, group, func(i, channel int) {
				g, _, _ := c.affine(in, n, channel)
				dx[i] = s[1] * (dv[i]*g - meanB - (in.x[i]-s[0])*s[1]*meanA)
				pixels[n*c.C+channel] += dx[i]
			})
		}
		for k := range c.C {
			_, _, scale1 := c.affine(in, n, k)
			dGammaBeta[n*2*c.C+k], dGammaBeta[(n*2+1)*c.C+k] = sumA[k]*scale1, sumB[k]*scale1
			dScaleShift[n*c.stride()+k], dScaleShift[n*c.stride()+c.C+k] = in.gamma[k]*sumA[k]+in.beta[k]*sumB[k], sumB[k]
		}
	}
	return dx, dGammaBeta, dScaleShift, pixels
}

// scaleShiftIn is the device memory of scaleShift, none where the case has none.
func (c normCase) scaleShiftIn(b *Builder, in normInputs) gpu.Ptr {
	if !c.scaleShift {
		return 0
	}
	return b.In(in.scaleShift)
}

// partial is the statistics of the tiles of x, as a convolution leaves them.
func (c normCase) partial(x []float64) []float64 {
	p := make([]float64, c.N*c.tiles*c.C*2)
	pixels := c.HW / c.tiles
	for n := range c.N {
		for t := range c.tiles {
			for k := range c.C {
				at := func(i int) float64 { return x[(n*c.HW+t*pixels+i)*c.C+k] }
				var mean, squares float64
				for i := range pixels {
					mean += at(i) / float64(pixels)
				}
				for i := range pixels {
					squares += (at(i) - mean) * (at(i) - mean)
				}
				i := ((n*c.tiles+t)*c.C + k) * 2
				p[i], p[i+1] = mean, squares
			}
		}
	}
	return p
}

func normForwardCase(c normCase) Case {
	return Case{Shape: c.String(), Bytes: 8 * float64(c.size()), FLOPs: 8 * float64(c.size()), Build: func(b *Builder) {
		in := c.inputs(b)
		y := b.Out("y", b.Want(c.size(), func() []float64 { return c.forward(in) }))
		stats := b.OutAcc("stats", b.Want(c.N*c.Groups*2, func() []float64 { return c.stats(in.x) }))
		x, gamma, beta, scaleShift := b.In(in.x), b.InAcc(in.gamma), b.InAcc(in.beta), c.scaleShiftIn(b, in)
		var partial gpu.Ptr
		if c.tiles > 0 {
			partial = b.InAcc(c.partial(in.x))
		}
		b.Launch(func(q *kernels.Queue) {
			q.GroupNormForward(c.Norm, in.dropout, y, stats, x, gamma, beta, scaleShift, c.stride(), partial, c.tiles)
		})
		if half := c.N / 2; half > 0 {
			b.Again("in two launches", func(q *kernels.Queue) {
				skip := half * c.HW * c.C
				q.GroupNormForward(c.images(half), in.dropout, y, stats, x, gamma, beta, scaleShift, c.stride(), partial, c.tiles)
				q.GroupNormForward(c.images(c.N-half), from(in.dropout, half), b.Offset(y, skip), b.Offset(stats, half*c.Groups*2), b.Offset(x, skip), gamma, beta,
					b.Offset(scaleShift, half*c.stride()), c.stride(), b.Offset(partial, half*c.tiles*c.C*2), c.tiles)
			})
		}
	}}
}

func normBackwardCase(c normCase) Case {
	return Case{Shape: c.String(), Bytes: 12 * float64(c.size()), FLOPs: 16 * float64(c.size()), Build: func(b *Builder) {
		in := c.inputs(b)
		var want struct{ dx, dGammaBeta, dScaleShift, pixels []float64 }
		wantOf := func(n int, v *[]float64) []float64 {
			return b.Want(n, func() []float64 {
				if want.dx == nil {
					want.dx, want.dGammaBeta, want.dScaleShift, want.pixels = c.backward(in)
				}
				return *v
			})
		}
		dx := b.Out("dx", wantOf(c.size(), &want.dx))
		row := 2*c.C + c.HW%20
		dGammaBeta := kernels.Rows{At: b.OutAcc("dγ, dβ", spread(wantOf(c.N*2*c.C, &want.dGammaBeta), 2*c.C, row)), Stride: row}
		var dScaleShift gpu.Ptr
		if c.scaleShift {
			dScaleShift = b.Out("dscale, dshift", wantOf(c.N*c.stride(), &want.dScaleShift))
		}
		var pixels kernels.PixelSums
		// A group's gradients add up to 0, the sums of its channels cancel: with one channel they are 0 but for rounding.
		if c.Groups < c.C {
			norm := 0.0
			for _, v := range want.dx {
				norm = math.Hypot(norm, v)
			}
			if row := c.C + c.HW%7; c.HW%3 > 0 {
				pixels.Sum = kernels.Rows{At: b.OutAcc("sums over pixels", spread(wantOf(c.N*c.C, &want.pixels), c.C, row)), Stride: row}
				b.Cancels(norm)
			}
			if c.HW%2 == 0 {
				pixels.Rounded = b.Out("rounded sums over pixels", wantOf(c.N*c.C, &want.pixels))
				b.Cancels(norm)
			}
		}
		dy, x, gamma, beta, scaleShift := b.In(in.dy), b.In(in.x), b.InAcc(in.gamma), b.InAcc(in.beta), c.scaleShiftIn(b, in)
		stats := b.InAcc(c.stats(in.x))
		b.Launch(func(q *kernels.Queue) {
			q.GroupNormBackward(c.Norm, in.dropout, dx, dGammaBeta, dScaleShift, pixels, dy, x, gamma, beta, scaleShift, c.stride(), stats)
		})
		if half := c.N / 2; half > 0 {
			b.Again("in two launches", func(q *kernels.Queue) {
				skip, skipRow := half*c.HW*c.C, half*c.stride()
				q.GroupNormBackward(c.images(half), in.dropout, dx, dGammaBeta, dScaleShift, pixels, dy, x, gamma, beta, scaleShift, c.stride(), stats)
				q.GroupNormBackward(c.images(c.N-half), from(in.dropout, half), b.Offset(dx, skip), b.rowsFrom(dGammaBeta, half), b.Offset(dScaleShift, skipRow),
					kernels.PixelSums{Sum: b.rowsFrom(pixels.Sum, half), Rounded: b.Offset(pixels.Rounded, half*c.C)}, b.Offset(dy, skip), b.Offset(x, skip), gamma, beta, b.Offset(scaleShift, skipRow), c.stride(), b.Offset(stats, half*c.Groups*2))
			})
		}
	}}
}

func normOps() []Op {
	// Groups of one channel, of all, of widths that are no multiple of a vector; more channels than a block takes; few and many pixels.
	var forward, backward []Case
	for _, s := range [][4]int{ // N, HW, C, groups
		{2, 35, 12, 3}, {2, 49, 16, 4}, {1, 12, 6, 6}, {3, 30, 12, 3}, {2, 15, 9, 1}, {2, 64, 96, 8}, {3, 3, 32, 8}, {1, 100, 32, 32},
		{2, 70, 48, 3}, {2, 33, 17, 17}, {1, 289, 5, 1}, {2, 16, 264, 33}, {1, 9, 640, 2}, {1, 7, 1100, 1}, {2, 90, 48, 4},
	} {
		for _, silu := range []bool{false, true} {
			for _, scaleShift := range []bool{false, true} {
				c := plainNorm(kernels.Norm{N: s[0], HW: s[1], C: s[2], Groups: s[3], Eps: 1e-5, SiLU: silu})
				c.scaleShift = scaleShift
				if s[2] > 256 && silu != scaleShift {
					continue
				}
				forward = append(forward, normForwardCase(c))
				backward = append(backward, normBackwardCase(c))
				if silu {
					c = c.dropped(float64(1+len(forward)%6)/10, len(forward)%kernels.MaxDropoutSites)
					forward, backward = append(forward, normForwardCase(c)), append(backward, normBackwardCase(c))
				}
			}
		}
	}
	for _, s := range [][5]int{ // N, HW, C, groups, tiles
		{2, 64, 32, 8, 1}, {3, 16, 64, 4, 1}, {1, 1024, 24, 3, 8}, {2, 256, 48, 6, 2}, {2, 12, 9, 3, 4}, {1, 128, 384, 32, 1},
	} {
		c := plainNorm(kernels.Norm{N: s[0], HW: s[1], C: s[2], Groups: s[3], Eps: 1e-5, SiLU: true})
		c.tiles = s[4]
		forward = append(forward, normForwardCase(c), normForwardCase(c.dropped(0.5, 127)))
		c.scaleShift = true
		forward = append(forward, normForwardCase(c))
	}
	// Images that a block keeps, of two tensors, of one, with fewer channels, and that it does not.
	for _, s := range [][4]int{{1, 1024, 32, 8}, {2, 1024, 64, 4}, {1, 1600, 16, 2}, {1, 2304, 16, 2}, {1, 4096, 8, 2}} {
		c := plainNorm(kernels.Norm{N: s[0], HW: s[1], C: s[2], Groups: s[3], Eps: 1e-5, SiLU: true})
		forward, backward = append(forward, normForwardCase(c)), append(backward, normBackwardCase(c))
		c = c.dropped(0.1, 2)
		forward, backward = append(forward, normForwardCase(c)), append(backward, normBackwardCase(c))
	}
	// A mask that drops nothing.
	none := plainNorm(kernels.Norm{N: 2, HW: 30, C: 24, Groups: 3, Eps: 1e-5, SiLU: true}).dropped(0, 5)
	forward, backward = append(forward, normForwardCase(none)), append(backward, normBackwardCase(none))
	// A large ε, which the statistics of nearly constant groups depend on.
	forward = append(forward, normForwardCase(plainNorm(kernels.Norm{N: 1, HW: 20, C: 8, Groups: 2, Eps: 0.5})))
	var benchForward, benchBackward []Case
	for _, s := range [][4]int{
		{32, 784, 32, 8}, {32, 784, 64, 8}, {32, 196, 32, 8}, {32, 49, 64, 8},
		{16, 1024, 128, 32}, {16, 1024, 256, 32}, {16, 256, 256, 32}, {16, 256, 512, 32}, {16, 16, 512, 32},
	} {
		c := plainNorm(kernels.Norm{N: s[0], HW: s[1], C: s[2], Groups: s[3], Eps: 1e-5, SiLU: true})
		benchForward = append(benchForward, normForwardCase(c))
		benchBackward = append(benchBackward, normBackwardCase(c))
		if s[2] == 64 || s[2] == 256 {
			c = c.dropped(0.1, 0)
			benchForward, benchBackward = append(benchForward, normForwardCase(c)), append(benchBackward, normBackwardCase(c))
		}
	}
	return []Op{
		{Name: "groupnorm_forward", Cases: forward, Bench: benchForward},
		{Name: "groupnorm_backward", Cases: backward, Bench: benchBackward},
	}
}
