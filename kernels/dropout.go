package kernels

import (
	"math"

	"ddgpu/gpu"
)

var dropout = declare("dropout", "ppplii"+"ir")

// DropoutShape is N images of PerImage elements each.
type DropoutShape struct {
	N        int
	PerImage int64
}

// MaxDropoutSites is how many dropout layers have purposes of their own.
const MaxDropoutSites = 128

// Dropout computes y = x·m/(1 − p), m = 0 with probability p and else 1; y may be x. Backward is the same call on dy: the mask is a
// function of the seed and step of state (a StepState), of the layer's number `site` and of the image, state.First + offset + n.
func (q *Queue) Dropout(g DropoutShape, site int, p float64, y, x, state gpu.Ptr, offset int64) {
	if !(p >= 0 && p < 1) || site < 0 || site >= MaxDropoutSites {
		q.fail("dropout %d with probability %g: want a layer below %d and a probability in [0, 1)", site, p, MaxDropoutSites)
		return
	}
	grid, perImage, ok := q.imageGrid(dropout, g.N, g.PerImage)
	if !ok {
		return
	}
	q.launch(dropout, grid, 0, ptr(y), ptr(x), ptr(state), i64(offset), i32(perImage), i32(site),
		i32(int(int32(dropoutThreshold(p)))), realArg(1/(1-p)))
}

// dropoutThreshold is the number below which an element is dropped.
func dropoutThreshold(p float64) uint32 { return uint32(min(math.Round(p*(1<<32)), 1<<32-1)) }

// imageGrid is the grid of a kernel that divides images of perImage elements, geometry {threads, elements of a block}.
func (q *Queue) imageGrid(k declaration, n int, perImage int64) (grid [3]int, elements int, ok bool) {
	if perImage < 0 || perImage > math.MaxInt32 {
		q.fail("kernel %s: images of %d elements are beyond 32 bits", k.name, perImage)
		return grid, 0, false
	}
	chunks := int(blocks(perImage, int64(q.geometry(k)[1])))
	return [3]int{n * chunks, 1, 1}, int(perImage), true
}
