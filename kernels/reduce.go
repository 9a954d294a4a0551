package kernels

import "ddgpu/gpu"

var (
	pixelSum      = declare("pixel_sum", "pippii")
	shardSum      = declare("shard_sum", "plpiiii")
	shardSumReals = declare("shard_sum_reals", "plpiiii")
	treeSum       = declare("tree_sum", "pplil")
)

// Rows are rows of sums, one for each image, from one to the next Stride elements.
type Rows struct {
	At     gpu.Ptr
	Stride int
}

// PixelSum computes out[n][c] = Σ_p x[n][p][c], x [n][hw][c], and the same rounded [n][c], to what activations are stored as. Either may be at 0.
func (q *Queue) PixelSum(n, hw, c int, out Rows, rounded, x gpu.Ptr) {
	chunks := int(blocks(int64(c), int64(q.geometry(pixelSum)[1])))
	q.launch(pixelSum, [3]int{n * chunks, 1, 1}, 0, ptr(out.At), i32(out.Stride), ptr(rounded), ptr(x), i32(hw), i32(c))
}

// ShardSum computes partial[s·stride + k] = Σ perImage[i][k] over the images i of shard s, in order, k < c.
func (q *Queue) ShardSum(s Shards, images, c int, partial gpu.Ptr, stride int64, perImage Rows) {
	q.shardSum(shardSum, s, images, c, partial, stride, perImage)
}

// ShardSumActivations is ShardSum of rows that are stored as activations are.
func (q *Queue) ShardSumActivations(s Shards, images, c int, partial gpu.Ptr, stride int64, perImage Rows) {
	q.shardSum(shardSumReals, s, images, c, partial, stride, perImage)
}

func (q *Queue) shardSum(k declaration, s Shards, images, c int, partial gpu.Ptr, stride int64, perImage Rows) {
	g := q.geometry(k)
	chunks := int(blocks(int64(c), int64(g[0])*int64(g[1])))
	q.launch(k, [3]int{s.Count * chunks, 1, 1}, 0, ptr(partial), i64(stride), ptr(perImage.At), i32(perImage.Stride), i32(images), i32(s.Size), i32(c))
}

// MaxTreeParts is how many parts TreeSum adds at most.
const MaxTreeParts = 32

// TreeSum computes out[k] = ((p₀ + p₁) + (p₂ + p₃)) + …, p_s = partial[s·stride + k], k < n. count is a power of two up to MaxTreeParts.
func (q *Queue) TreeSum(count int, n int64, out, partial gpu.Ptr, stride int64) {
	if count < 1 || count > MaxTreeParts || count&(count-1) != 0 {
		q.fail("a tree sum of %d parts: want a power of two up to %d", count, MaxTreeParts)
		return
	}
	q.launchElements(treeSum, n, ptr(out), ptr(partial), i64(stride), i32(count), i64(n))
}
