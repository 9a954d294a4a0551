package kernels

import (
	"math"

	"ddgpu/gpu"
)

var (
	timestepEmbedding = declare("timestep_embedding", "pppiii")
	embeddingForward  = declare("embedding_forward", "ppppiii")
	embeddingBackward = declare("embedding_backward", "plppiiiii")
)

// TimestepFrequencies is the table for TimestepEmbedding: the dim/2 frequencies exp(−ln(maxPeriod)·i/(dim/2 − freqShift))/2π, in turns for
// each unit of time, each as a float32 in the first half and the rest in the second.
func TimestepFrequencies(dim int, freqShift, maxPeriod float64) []float64 {
	half := dim / 2
	f := make([]float64, 2*half)
	for i := range half {
		turns := math.Exp(-math.Log(maxPeriod)*float64(i)/(float64(half)-freqShift)) / (2 * math.Pi)
		f[i] = float64(float32(turns))
		f[half+i] = turns - f[i]
	}
	return f
}

// TimestepEmbedding computes y[n] = (sin(2π t[n] f_i), cos(2π t[n] f_i)) for n < count, i < dim/2, the cosines first with flip; an odd dim ends
// with a 0. freq is TimestepFrequencies(dim, …).
func (q *Queue) TimestepEmbedding(count, dim int, flip bool, y, t, freq gpu.Ptr) {
	if dim < 2 {
		q.fail("a time embedding of %d values: want 2 or more", dim)
		return
	}
	q.launchRows(timestepEmbedding, int64(count), dim/2, ptr(y), ptr(t), ptr(freq), i32(count), i32(dim), flag(flip))
}

// EmbeddingForward computes y[n] = x[n] + table[labels[n]], rows of c values; a label outside 0 … classes−1 gives NaN. y may be x.
func (q *Queue) EmbeddingForward(n, c, classes int, y, x, table, labels gpu.Ptr) {
	q.launchRows(embeddingForward, int64(n), c, ptr(y), ptr(x), ptr(table), ptr(labels), i32(n), i32(c), i32(classes))
}

// EmbeddingBackward computes the table's gradient of each shard, partial[s·stride + k·c + j] = Σ dy[i][j] over the images i of shard s
// that have the label k, in order, and 0 where there is none.
func (q *Queue) EmbeddingBackward(s Shards, images, c, classes int, partial gpu.Ptr, stride int64, dy, labels gpu.Ptr) {
	q.launchRows(embeddingBackward, int64(s.Count)*int64(classes), c, ptr(partial), i64(stride), ptr(dy), ptr(labels),
		i32(images), i32(s.Count), i32(s.Size), i32(c), i32(classes))
}
