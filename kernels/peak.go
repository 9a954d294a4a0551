package kernels

import "ddgpu/gpu"

var peakKernel = declare("peak", "pirr")

// PeakShape is how many values a block of Peak writes, and its chains of multiply-adds.
func (q *Queue) PeakShape() (values, chains int) {
	g := q.geometry(peakKernel)
	return int(g[0] * g[1]), int(g[2])
}

// Peak computes, for each value of out, the sum over chains c of the `steps`-fold a ← a·m + b from a = 1 + c: arithmetic without memory. out
// has blocks × PeakShape values.
func (q *Queue) Peak(blocks, steps int, m, b float64, out gpu.Ptr) {
	q.launch(peakKernel, [3]int{blocks, 1, 1}, 0, ptr(out), i32(steps), realArg(m), realArg(b))
}
