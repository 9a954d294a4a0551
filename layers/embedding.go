package layers

import "ddgpu/kernels"

// maxPeriod is the range of the time embedding's frequencies, 1 … 1/maxPeriod in radians for a step.
const maxPeriod = 10000

// timeEmbedding is the sinusoids of the step that each image is at; it has no input but the instance's Time.
type timeEmbedding struct {
	dim         int
	flip        bool
	frequencies []float64
}

func (b *builder) timeEmbedding(name string, dim int, flip bool, freqShift float64) *value {
	o := timeEmbedding{dim, flip, kernels.TimestepFrequencies(dim, freqShift, maxPeriod)}
	return b.add(name, o, Shape{1, 1, dim})
}

func (o timeEmbedding) kind() string   { return "time embedding" }
func (o timeEmbedding) needs() needs   { return needs{constants: o.frequencies} }
func (o timeEmbedding) backward(*call) {}

func (o timeEmbedding) forward(c *call) {
	c.q.TimestepEmbedding(c.images, o.dim, o.flip, c.out(), c.i.Time, c.constants())
}

// classEmbedding adds the row of a learned table that each image's label names.
type classEmbedding struct{ width, classes, table int }

func (b *builder) classEmbedding(name string, x *value, classes int) *value {
	o := classEmbedding{width: x.shape.C, classes: classes}
	o.table = b.param(name+".weight", AsPublic, Init{Kind: Normal}, classes, x.shape.C)
	b.g.Classes = classes
	return b.add(name, o, x.shape, x)
}

func (o classEmbedding) kind() string { return "class embedding" }
func (o classEmbedding) needs() needs { return needs{params: true, passes: 1} }

func (o classEmbedding) forward(c *call) {
	c.q.EmbeddingForward(c.images, o.width, o.classes, c.out(), c.in(0), c.weight(o.table), c.i.Labels)
}

func (o classEmbedding) backward(c *call) {
	c.q.EmbeddingBackward(c.shards, c.images, o.width, o.classes, c.gradient(o.table), c.stride(), c.dOut(), c.i.Labels)
}
