package layers

import (
	"fmt"
	"slices"
)

// Tensor is an array with a name.
type Tensor struct {
	Name   string
	Shape  []int
	Values []float64
}

// ToPublic returns an arena's tensors by their public names, in public shapes.
func (g *Graph) ToPublic(arena []float64) []Tensor {
	tensors := make([]Tensor, len(g.Params))
	for i, p := range g.Params {
		tensors[i] = Tensor{p.Name, p.Shape, p.ToPublic(arena)}
	}
	return tensors
}

// FromPublic makes an arena of the network's tensors, each of which must be there once.
func (g *Graph) FromPublic(tensors []Tensor) ([]float64, error) {
	if len(tensors) != len(g.Params) {
		return nil, fmt.Errorf("%d tensors, the network has %d", len(tensors), len(g.Params))
	}
	arena := make([]float64, g.ArenaElements)
	for _, p := range g.Params {
		i := slices.IndexFunc(tensors, func(t Tensor) bool { return t.Name == p.Name })
		if i < 0 || !slices.Equal(tensors[i].Shape, p.Shape) {
			return nil, fmt.Errorf("no tensor is %s %v", p.Name, p.Shape)
		}
		p.FromPublic(arena, tensors[i].Values)
	}
	return arena, nil
}
