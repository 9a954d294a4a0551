package kernels

import "ddgpu/gpu"

var (
	addKernel      = declare("add", "pppl")
	scaleKernel    = declare("scale", "pplr")
	siluForward    = declare("silu_forward", "ppl")
	siluBackward   = declare("silu_backward", "pppl")
	concatForward  = declare("concat_forward", "pppl"+"ii")
	concatBackward = declare("concat_backward", "pppl"+"ii")

	upsample2Forward  = declare("upsample2_forward", "ppiiii")
	upsample2Backward = declare("upsample2_backward", "ppiiii")
	avgPool2Forward   = declare("avgpool2_forward", "ppiiii")
	avgPool2Backward  = declare("avgpool2_backward", "ppiiii")
)

// Add computes y = a + b over n elements; y may be a or b.
func (q *Queue) Add(n int64, y, a, b gpu.Ptr) {
	q.launchElements(addKernel, n, ptr(y), ptr(a), ptr(b), i64(n))
}

// Scale computes y = x·s over n elements; y may be x.
func (q *Queue) Scale(n int64, y, x gpu.Ptr, s float64) {
	q.launchElements(scaleKernel, n, ptr(y), ptr(x), i64(n), realArg(s))
}

// SiLUForward computes y = x·σ(x) over n elements, σ the logistic function.
func (q *Queue) SiLUForward(n int64, y, x gpu.Ptr) {
	q.launchElements(siluForward, n, ptr(y), ptr(x), i64(n))
}

// SiLUBackward computes dx = dy·σ(x)(1 + x(1 − σ(x))).
func (q *Queue) SiLUBackward(n int64, dx, dy, x gpu.Ptr) {
	q.launchElements(siluBackward, n, ptr(dx), ptr(dy), ptr(x), i64(n))
}

// ConcatForward computes y[row] = (a[row], b[row]), rows of ca and cb channels.
func (q *Queue) ConcatForward(rows int64, ca, cb int, y, a, b gpu.Ptr) {
	q.launchRows(concatForward, rows, ca+cb, ptr(y), ptr(a), ptr(b), i64(rows), i32(ca), i32(cb))
}

// ConcatBackward splits dy's rows into da and db.
func (q *Queue) ConcatBackward(rows int64, ca, cb int, da, db, dy gpu.Ptr) {
	q.launchRows(concatBackward, rows, ca+cb, ptr(da), ptr(db), ptr(dy), i64(rows), i32(ca), i32(cb))
}

// Upsample2Forward doubles x [n][h][w][c] to y [n][2h][2w][c], each pixel to a square of four.
func (q *Queue) Upsample2Forward(n, h, w, c int, y, x gpu.Ptr) {
	q.launchRows(upsample2Forward, 4*int64(n)*int64(h)*int64(w), c, ptr(y), ptr(x), i32(n), i32(h), i32(w), i32(c))
}

// Upsample2Backward sums the four gradients of each pixel of x [n][h][w][c].
func (q *Queue) Upsample2Backward(n, h, w, c int, dx, dy gpu.Ptr) {
	q.launchRows(upsample2Backward, int64(n)*int64(h)*int64(w), c, ptr(dx), ptr(dy), i32(n), i32(h), i32(w), i32(c))
}

// AvgPool2Forward halves x [n][h][w][c] to y [n][h/2][w/2][c], the means of squares of four; an odd last row or column is dropped.
func (q *Queue) AvgPool2Forward(n, h, w, c int, y, x gpu.Ptr) {
	q.launchRows(avgPool2Forward, int64(n)*int64(h/2)*int64(w/2), c, ptr(y), ptr(x), i32(n), i32(h), i32(w), i32(c))
}

// AvgPool2Backward computes dx [n][h][w][c], a quarter of the gradient of its window.
func (q *Queue) AvgPool2Backward(n, h, w, c int, dx, dy gpu.Ptr) {
	q.launchRows(avgPool2Backward, int64(n)*int64(h)*int64(w), c, ptr(dx), ptr(dy), i32(n), i32(h), i32(w), i32(c))
}
