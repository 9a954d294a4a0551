package layers

import (
	"slices"

	"ddgpu/kernels"
)

// Operations is the shapes that a network computes, each once, in the order of Forward, their N 0.
type Operations struct {
	Convs      []kernels.Conv      // convolutions
	Linears    []kernels.Conv      // matrices applied to every pixel, or to every image
	Norms      []kernels.Norm      // group normalisations
	Attentions []kernels.Attention // softmax attentions
	Upsamples  []Shape             // inputs that are doubled
	AvgPools   []Shape             // inputs that are halved
}

// Operations lists what the network computes, so that its parts can be measured alone.
func (g *Graph) Operations() Operations {
	var o Operations
	for _, n := range g.nodes {
		switch op := n.op.(type) {
		case conv:
			if g.Params[op.weight].Layout == Matrix {
				o.Linears = once(o.Linears, op.shape)
			} else {
				o.Convs = once(o.Convs, op.shape)
			}
		case groupNorm:
			o.Norms = once(o.Norms, op.shape)
		case attention:
			o.Attentions = once(o.Attentions, op.shape)
		case upsample:
			o.Upsamples = once(o.Upsamples, op.shape)
		case averagePool:
			o.AvgPools = once(o.AvgPools, op.shape)
		}
	}
	return o
}

func once[T comparable](list []T, v T) []T {
	if slices.Contains(list, v) {
		return list
	}
	return append(list, v)
}

// FLOPs is the arithmetic of products in a forward pass of one image, two for each multiply-add: convolutions, matrices, attention.
func (g *Graph) FLOPs() float64 {
	sum := 0.0
	for _, n := range g.nodes {
		switch op := n.op.(type) {
		case conv:
			one := op.shape
			one.N = 1
			pixels := float64(one.OH * one.OW)
			one.OH, one.OW = 1, 1
			sum += pixels * one.FLOPs()
		case attention:
			a := op.shape
			sum += 4 * float64(a.L) * float64(a.L) * float64(a.Heads*a.Dim)
		}
	}
	return sum
}
