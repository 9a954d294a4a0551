package kernels

import "ddgpu/gpu"

var (
	squareSum  = declare("square_sum", "ppli")
	gradNorm   = declare("grad_norm", "ppi")
	adamKernel = declare("adam", "pppppppp"+"lrrrrrir")
	roundReals = declare("round_reals", "ppl")
)

// normChunk is how many elements of a gradient one block squares and sums.
const normChunk = 1 << 14

// GradNormScratch is the reals of scratch that GradNorm needs for n elements.
func GradNormScratch(n int64) int64 { return blocks(n, normChunk) }

// GradNorm computes norm = √Σ g² over n elements, in an order that depends on n alone.
func (q *Queue) GradNorm(n int64, norm, scratch, g gpu.Ptr) {
	count := GradNormScratch(n)
	q.launch(squareSum, [3]int{int(count), 1, 1}, 0, ptr(scratch), ptr(g), i64(n), i32(normChunk))
	q.launch(gradNorm, [3]int{1, 1, 1}, 0, ptr(norm), ptr(scratch), i32(int(count)))
}

// Adam is an update of N weights by Adam, with WeightDecay as an L2 term of the gradient, or Decoupled as in AdamW.
type Adam struct {
	N                     int64
	Beta1, Beta2, Epsilon float64
	WeightDecay           float64
	Decoupled             bool
	MaxNorm               float64 // the gradient is scaled down to this norm; 0 for never
}

// Adam updates weights p, moments m and v and the average ema with the gradient g, as PyTorch's Adam and AdamW do after clip_grad_norm_:
//
//	g ← g·min(1, MaxNorm/(norm + 1e-6))
//	g ← g + WeightDecay·p    (or Decoupled: p ← p − lr·WeightDecay·p)
//	m ← m + (1 − β1)(g − m),  v ← β2·v + (1 − β2)·g²
//	p ← p − lr/Correction1·m/(√v/√Correction2 + ε)
//	ema ← ema + (1 − EMADecay)(p − ema)
//
// rounded receives the new weights as activations are stored, where it is not 0. norm is GradNorm's; lr, Correction1, Correction2 and EMADecay come from state, a StepState. Elements that are 0 in all arrays stay 0.
func (q *Queue) Adam(a Adam, p, m, v, ema, rounded, g, norm, state gpu.Ptr) {
	if !(a.Epsilon > 0) || !(a.Beta1 >= 0 && a.Beta1 < 1) || !(a.Beta2 >= 0 && a.Beta2 < 1) {
		q.fail("adam with β1 %g, β2 %g, ε %g: want β in [0, 1) and a positive ε", a.Beta1, a.Beta2, a.Epsilon)
		return
	}
	q.launchElements(adamKernel, a.N, ptr(p), ptr(m), ptr(v), ptr(ema), ptr(rounded), ptr(g), ptr(norm), ptr(state), i64(a.N),
		realArg(1-a.Beta1), realArg(a.Beta2), realArg(1-a.Beta2), realArg(a.Epsilon), realArg(a.WeightDecay), flag(a.Decoupled),
		realArg(a.MaxNorm))
}

// Round computes y = x, n numbers as parameters are stored, rounded to what activations are stored as.
func (q *Queue) Round(n int64, y, x gpu.Ptr) {
	q.launchElements(roundReals, n, ptr(y), ptr(x), i64(n))
}
