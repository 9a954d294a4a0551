package kernels

import (
	"math"

	"ddgpu/gpu"
)

// Norm is the shape of a group normalisation of x [N][HW][C] over groups of C/Groups neighbouring channels, with SiLU after it or not.
type Norm struct {
	N, HW, C, Groups int
	Eps              float64
	SiLU             bool
}

var (
	groupNormForward         = declare("groupnorm_forward", "pppipppp"+"iiiiiir"+"i")
	groupNormForwardDropout  = declare("groupnorm_forward_dropout", "pppipppp"+"iiiiiir"+dropoutArgs)
	groupNormBackward        = declare("groupnorm_backward", "ppippippppppip"+"iiiii"+"i")
	groupNormBackwardDropout = declare("groupnorm_backward_dropout", "ppippippppppip"+"iiiii"+dropoutArgs)
)

// PixelSums is where a backward pass leaves the sums over the pixels of the gradient that it writes, a row of C for each image: a convolution's
// gradient of its bias and of what it adds to each image. Rounded [N][C] is the same as activations are stored. Either may be at 0.
type PixelSums struct {
	Sum     Rows
	Rounded gpu.Ptr
}

// normLaunch is how a kernel is launched over the channels of an image.
type normLaunch struct {
	channels int  // of a block, whole groups
	staged   bool // a block keeps its part of the tensors
	shared   int  // bytes of dynamic shared memory
}

// mostShared is how many bytes of shared memory a block can have on every GPU that runs a precision: 64 KB with compute capability 7.5, 99 KB with
// 8.6 and 8.9 (CUDA C++ Programming Guide, technical specifications). All GPUs cut a group norm alike, for the same bits.
func mostShared(p Precision) int {
	if p.Tensor() {
		return 99 << 10
	}
	return 64 << 10
}

// launchOf depends on the shape of one image alone. The kernel adds up `sums` kinds of sums and reads as many tensors.
func (g Norm) launchOf(geometry []int32, sums int, p Precision) normLaunch {
	threads, least, vec, elements, stage := int(geometry[0]), int(geometry[1]), int(geometry[2]), int(geometry[3]), int(geometry[4])
	group := g.C / g.Groups
	width := 1
	if threads == 1 || g.C%vec == 0 {
		width = vec
	}
	of := func(least, elements int) normLaunch {
		l := normLaunch{channels: group}
		for l.channels < g.C && (l.channels < least || l.channels%vec != 0 || l.channels*g.HW < elements) {
			l.channels += group
		}
		// The threads' sums of one kind: the last block's channels may be fewer and its threads spread over more pixels, but it has no more threads.
		spread := max(l.channels, threads*width)
		l.shared = int(p.AccSize()) * (2*l.channels + sums*l.channels + sums*spread)
		if kept := sums * g.HW * l.channels * int(p.Size()); width == vec && kept <= stage && l.shared+kept <= mostShared(p) {
			l.staged, l.shared = true, l.shared+kept
		}
		return l
	}
	l := of(least, elements)
	if narrow := of(vec, 0); !l.staged && narrow.staged {
		return narrow
	}
	return l
}

// GroupNormForward computes y = act((x − mean)·rstd·g + b), with g = γ(1 + scale), b = β(1 + scale) + shift, where scaleShift is given as
// rows of `stride` values [scale C][shift C], one for each image. stats [N][Groups][2] receives mean and rstd. Where the convolution that made x
// left the statistics of its tiles, [N][tiles][C][2] of means and sums of squares about them over HW/tiles pixels each, they are in partial;
// otherwise partial is 0. y = dropout(act(…)) where d says so.
func (q *Queue) GroupNormForward(g Norm, d Dropout, y, stats, x, gamma, beta, scaleShift gpu.Ptr, stride int, partial gpu.Ptr, tiles int) {
	if partial != 0 && (tiles < 1 || g.HW%tiles != 0) {
		q.fail("a group norm of %d pixels with statistics of %d tiles", g.HW, tiles)
		return
	}
	k, act, ok := q.activation(g, d, groupNormForward, groupNormForwardDropout)
	if !ok {
		return
	}
	l := g.launchOf(q.geometry(k), 1, q.Precision())
	q.launch(k, [3]int{g.N * int(blocks(int64(g.C), int64(l.channels))), 1, 1}, l.shared,
		append([]arg{ptr(y), ptr(stats), ptr(partial), i32(tiles), ptr(x), ptr(gamma), ptr(beta), ptr(scaleShift),
			i32(stride), i32(g.HW), i32(g.C), i32(g.Groups), i32(l.channels), flag(l.staged), realArg(g.Eps)}, act...)...)
}

// GroupNormBackward computes dx, and for each image dγ and dβ in a row of dGammaBeta [N][2][C], and d(scale, shift) shaped like scaleShift; with the
// dropout of GroupNormForward. pixels receives Σ_p dx[n][p][c].
func (q *Queue) GroupNormBackward(g Norm, d Dropout, dx gpu.Ptr, dGammaBeta Rows, dScaleShift gpu.Ptr, pixels PixelSums, dy, x, gamma, beta, scaleShift gpu.Ptr,
	stride int, stats gpu.Ptr) {
	k, act, ok := q.activation(g, d, groupNormBackward, groupNormBackwardDropout)
	if !ok {
		return
	}
	l := g.launchOf(q.geometry(k), 2, q.Precision())
	q.launch(k, [3]int{g.N * int(blocks(int64(g.C), int64(l.channels))), 1, 1}, l.shared,
		append([]arg{ptr(dx), ptr(dGammaBeta.At), i32(dGammaBeta.Stride), ptr(dScaleShift), ptr(pixels.Sum.At), i32(pixels.Sum.Stride),
			ptr(pixels.Rounded), ptr(dy), ptr(x), ptr(gamma), ptr(beta), ptr(scaleShift), i32(stride),
			ptr(stats), i32(g.HW), i32(g.C), i32(g.Groups), i32(l.channels), flag(l.staged)}, act...)...)
}

func flag(b bool) arg {
	if b {
		return i32(1)
	}
	return i32(0)
}

// activation is the kernel for what follows a normalisation, and the arguments that end its launch.
func (q *Queue) activation(g Norm, d Dropout, plain, dropout declaration) (k declaration, args []arg, ok bool) {
	switch {
	case d.State == 0:
		return plain, []arg{flag(g.SiLU)}, true
	case !d.valid():
		q.fail("dropout %d with probability %g: want a layer below %d and a probability in [0, 1)", d.Site, d.P, MaxDropoutSites)
	case !g.SiLU:
		q.fail("dropout %d after a group norm without SiLU", d.Site)
	case int64(g.HW)*int64(g.C) > math.MaxInt32:
		q.fail("dropout %d: images of %d elements are beyond 32 bits", d.Site, int64(g.HW)*int64(g.C))
	default:
		return dropout, d.args(), true
	}
	return k, nil, false
}
