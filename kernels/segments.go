package kernels

import "ddgpu/gpu"

// Segments says how the weight gradient of a shard is summed. Rows of the weights, as [KH·KW·Cin] × Cout, before Row are summed over all pixels of
// the shard at once; those from Row on over each of Count segments of Length pixels, and then the segments' sums are added in ascending order. A
// Count of 0 cuts nothing.
type Segments struct{ Row, Count, Length int }

// tileRows is what Segments.Row is a multiple of: no tile of a weight gradient has more rows, and all divide it.
const tileRows = 128

// stepPixels is what the length of a segment is a multiple of: a step of the large tiles in bf16, two of tf32.
const stepPixels = 32

// leastSegment is the fewest pixels that a segment pays for: its sums are written and read once more, in the time of some 400 pixels on an H100.
const leastSegment = 1024

// A segmentRule cuts a shard of at most so many large tiles, and columns, 0 for any: all tiles but the first `whole`, into so many segments.
type segmentRule struct{ tiles, columns, whole, count int }

// The rules, of which the first is taken that fits and whose segments are long enough. They are made for 8 shards on one GPU, of 108 to 132
// multiprocessors: 13 to 16 tiles of each shard are one wave of blocks. Whole waves stay as they are; what is left over is cut until it fills the
// multiprocessors evenly, since each segment costs bytes: see docs/tensor-cores.md.
var segmentRules = []segmentRule{
	{tiles: 1, count: 16},
	{tiles: 1, count: 4},
	{tiles: 12, columns: 16, count: 14},
	{tiles: 12, columns: 16, count: 4},
	{tiles: 12, count: 3},
	{tiles: 24, whole: 13, count: 4},
	{tiles: 32, whole: 16, count: 4},
	{tiles: 48, whole: 32, count: 4},
	{tiles: 64, whole: 48, count: 2},
	{tiles: 80, whole: 64, count: 2},
}

// WeightSegments is how the weight gradient of shards of so many images is summed on tensor cores. It depends on the convolution and the size of a
// shard alone, so that each sum is made the same way however the work is divided. 1×1 convolutions of more than one tile are not cut: what they read
// bounds them.
func (c Conv) WeightSegments(size int, p Precision) Segments {
	product := c.backwardWeight()
	if !p.Tensor() || product.taps == 1 && product.tiles > 1 {
		return Segments{}
	}
	pixels := int64(size) * int64(c.OH*c.OW)
	for _, r := range segmentRules {
		if product.tiles > r.tiles || r.columns > 0 && product.columns > r.columns || pixels < leastSegment*int64(r.count) {
			continue
		}
		s := Segments{Row: r.whole / int(blocks(int64(c.Cout), 128)) * tileRows, Count: r.count}
		if s.Row >= product.rows {
			return Segments{}
		}
		s.Length = int(blocks(blocks(pixels, int64(r.count)), stepPixels) * stepPixels)
		return s
	}
	return Segments{}
}

// Work is how many sums the segments of a weight gradient of so many shards have: [shards][Count][rows from Row on][Cout].
func (s Segments) Work(g Conv, shards int) int64 {
	if s.Count == 0 {
		return 0
	}
	return int64(shards) * int64(s.Count) * s.rest(g)
}

// rest is the weights that are summed in segments.
func (s Segments) rest(g Conv) int64 { return int64(g.KH*g.KW*g.Cin-s.Row) * int64(g.Cout) }

// ConvBackwardWeight computes the gradient of w of each shard, partial[shard·stride + …] = [KH][KW][Cin][Cout], summed as cut says, for which work
// has room for cut.Work sums. Tiles of the host are not cut.
func (q *Queue) ConvBackwardWeight(g Conv, s Shards, cut Segments, partial gpu.Ptr, stride int64, work, dy, x gpu.Ptr) {
	k := q.variant(convBackwardWeightKernels, g.backwardWeight())
	t := q.geometry(k)
	if t[0] == 1 {
		cut = Segments{}
	}
	all := g.KH * g.KW * g.Cin
	if cut.Count > 0 && (cut.Row%int(t[1]) != 0 || cut.Row < 0 || cut.Row >= all || cut.Length < 1 || work == 0) {
		q.fail("a weight gradient of %d rows, in segments %+v: want some rows from a multiple of %d on, and a workspace", all, cut, t[1])
		return
	}
	rows, columns, whole := int(blocks(int64(all), int64(t[1]))), int(blocks(int64(g.Cout), int64(t[2]))), cut.Row/int(t[1])
	if cut.Count == 0 {
		whole = rows
	}
	grid := [3]int{s.Count * columns * (whole + (rows-whole)*cut.Count), 1, 1}
	shape := g.args()
	args := append([]arg{ptr(partial), ptr(work), ptr(dy), ptr(x), i64(stride), i32(cut.Row), i32(cut.Count), i32(cut.Length), shape[0], i32(s.Size)}, shape[1:]...)
	q.launch(k, grid, 0, args...)
	if cut.Count > 0 {
		behind := partial.Offset(int64(cut.Row) * int64(g.Cout) * q.Precision().AccSize())
		q.ShardSum(Shards{Count: s.Count, Size: cut.Count}, s.Count*cut.Count, int(cut.rest(g)), behind, stride, Rows{work, int(cut.rest(g))})
	}
}
