package layers

import (
	"math"

	"ddgpu/kernels"
)

// Init is the distribution of a tensor before training, PyTorch's default for its layer.
type Init struct {
	Kind  InitKind
	FanIn int // of Uniform: inputs that one output sums over
}

// InitKind names a distribution.
type InitKind int

// The distributions.
const (
	Zeros   InitKind = iota
	Ones             // weights of group norms
	Normal           // N(0, 1): tables of embeddings
	Uniform          // U(−1/√FanIn, 1/√FanIn): weights and biases of convolutions and linear layers
)

// InitWeights draws an arena of weights, exact in float32: a function of the seed, of each tensor's position in Params, and of the element's
// index in the public tensor.
func (g *Graph) InitWeights(seed uint64) []float64 {
	arena := make([]float64, g.ArenaElements)
	for i := range g.Params {
		p := &g.Params[i]
		values := make([]float64, p.Elements)
		draws := kernels.Stream{Seed: seed, Purpose: kernels.DrawWeights, Image: uint64(i)}
		switch p.Init.Kind {
		case Ones:
			for e := range values {
				values[e] = 1
			}
		case Normal:
			draws.Normals(values)
		case Uniform:
			bound := 1 / math.Sqrt(float64(p.Init.FanIn))
			for e := 0; e < len(values); e += 4 {
				for j, r := range draws.Block(uint32(e / 4)) {
					if e+j < len(values) {
						values[e+j] = bound * ((float64(r)+0.5)/(1<<31) - 1)
					}
				}
			}
		}
		for e := range values {
			values[e] = float64(float32(values[e]))
		}
		p.FromPublic(arena, values)
	}
	return arena
}
