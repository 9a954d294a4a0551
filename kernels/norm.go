package kernels

import "ddgpu/gpu"

// Norm is the shape of a group normalisation of x [N][HW][C] over groups of C/Groups neighbouring channels, with SiLU after it or not.
type Norm struct {
	N, HW, C, Groups int
	Eps              float64
	SiLU             bool
}

var (
	groupNormForward  = declare("groupnorm_forward", "ppppppiiiiiri")
	groupNormBackward = declare("groupnorm_backward", "ppppppppipiiiii")
)

// perBlock is how many channels a block of the kernel owns, whole groups, and the dynamic shared memory that k sums for each need.
func (g Norm) perBlock(geometry []int32, sums int, p Precision) (channels, shared int) {
	threads, least, vec := int(geometry[0]), int(geometry[1]), int(geometry[2])
	group := g.C / g.Groups
	channels = group
	for channels < g.C && (channels < least || channels%vec != 0) {
		channels += group
	}
	width := 1
	if threads == 1 || g.C%vec == 0 {
		width = vec
	}
	// The threads' sums of one kind: the last block's channels may be fewer and its threads spread over more pixels, but it has no more threads.
	spread := max(channels, threads*width)
	return channels, int(p.AccSize()) * (2*channels + sums*channels + sums*spread)
}

func flag(b bool) arg {
	if b {
		return i32(1)
	}
	return i32(0)
}

// GroupNormForward computes y = act((x − mean)·rstd·g + b), with g = γ(1 + scale), b = β(1 + scale) + shift, where scaleShift is given as
// rows of `stride` values [scale C][shift C], one for each image. stats [N][Groups][2] receives mean and rstd.
func (q *Queue) GroupNormForward(g Norm, y, stats, x, gamma, beta, scaleShift gpu.Ptr, stride int) {
	per, shared := g.perBlock(q.geometry(groupNormForward), 1, q.Precision())
	q.launch(groupNormForward, [3]int{g.N * int(blocks(int64(g.C), int64(per))), 1, 1}, shared,
		ptr(y), ptr(stats), ptr(x), ptr(gamma), ptr(beta), ptr(scaleShift), i32(stride), i32(g.HW), i32(g.C), i32(g.Groups), i32(per),
		realArg(g.Eps), flag(g.SiLU))
}

// GroupNormBackward computes dx, and for each image dγ and dβ in dGammaBeta [N][2][C], and d(scale, shift) shaped like scaleShift.
func (q *Queue) GroupNormBackward(g Norm, dx, dGammaBeta, dScaleShift, dy, x, gamma, beta, scaleShift gpu.Ptr, stride int, stats gpu.Ptr) {
	per, shared := g.perBlock(q.geometry(groupNormBackward), 2, q.Precision())
	q.launch(groupNormBackward, [3]int{g.N * int(blocks(int64(g.C), int64(per))), 1, 1}, shared,
		ptr(dx), ptr(dGammaBeta), ptr(dScaleShift), ptr(dy), ptr(x), ptr(gamma), ptr(beta), ptr(scaleShift), i32(stride), ptr(stats),
		i32(g.HW), i32(g.C), i32(g.Groups), i32(per), flag(g.SiLU))
}
