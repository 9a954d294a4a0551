package kernels

import (
	"math"

	"ddgpu/gpu"
)

var (
	noiseAdd   = declare("noise_add", "ppppp"+"liiiiir")
	lossKernel = declare("loss", "pppppp"+"liiiiiir")
)

// Noise is a batch of training samples made from images [N][H][W][C] of bytes, image n having the number state.First + Offset + n in the
// stream of data. A function of that number, the seed and the step are: n, uniform in 0 … T−1; whether the image is mirrored, where Flip
// is set; and the noise ε.
type Noise struct {
	N, H, W, C int
	T          int // steps of the schedule
	Flip       bool
	Offset     int64
}

func (g Noise) perImage() int64 { return int64(g.H) * int64(g.W) * int64(g.C) }

// Objective is what a network predicts.
type Objective int

// The objectives, for x_n = √ᾱ x0 + √(1 − ᾱ) ε.
const (
	Eps Objective = iota // ε
	X0                   // x0
	V                    // √ᾱ ε − √(1 − ᾱ) x0
)

// NoiseAdd computes x_n = √ᾱ_n x0 + √(1 − ᾱ_n) ε, where x0 = (2v − 255)/255 for bytes v, and t[n] = n·timeScale. roots holds √ᾱ_n of all T
// steps, then √(1 − ᾱ_n).
func (q *Queue) NoiseAdd(g Noise, xn, t, images, state, roots gpu.Ptr, timeScale float64) {
	grid, _, ok := q.imageGrid(noiseAdd, g.N, g.perImage())
	if !ok {
		return
	}
	q.launch(noiseAdd, grid, 0, ptr(xn), ptr(t), ptr(images), ptr(state), ptr(roots),
		i64(g.Offset), i32(g.T), flag(g.Flip), i32(g.H), i32(g.W), i32(g.C), realArg(timeScale))
}

// Loss computes loss[n] = mean (y − target)² over the elements of image n, and dy = scale·2(y − target)/(H·W·C), the gradient of scale·Σ loss;
// dy may be 0 for none. The target is that of the samples which NoiseAdd made with the same Noise and state.
func (q *Queue) Loss(g Noise, o Objective, dy, loss, y, images, state, roots gpu.Ptr, scale float64) {
	if o < Eps || o > V {
		q.fail("loss: unknown objective %d", o)
		return
	}
	if g.perImage() < 1 || g.perImage() > 1<<31-1 {
		q.fail("loss of images of %d elements: want 1 to 2³¹ − 1", g.perImage())
		return
	}
	q.launch(lossKernel, [3]int{g.N, 1, 1}, 0, ptr(dy), ptr(loss), ptr(y), ptr(images), ptr(state), ptr(roots),
		i64(g.Offset), i32(g.T), flag(g.Flip), i32(g.H), i32(g.W), i32(g.C), i32(int(o)), realArg(2*scale/float64(g.perImage())))
}

// imageGrid is the grid of a kernel that divides images of perImage elements, geometry {threads, elements of a block}.
func (q *Queue) imageGrid(k declaration, n int, perImage int64) (grid [3]int, elements int, ok bool) {
	if perImage < 0 || perImage > math.MaxInt32 {
		q.fail("kernel %s: images of %d elements are beyond 32 bits", k.name, perImage)
		return grid, 0, false
	}
	chunks := int(blocks(perImage, int64(q.geometry(k)[1])))
	return [3]int{n * chunks, 1, 1}, int(perImage), true
}
