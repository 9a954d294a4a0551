package layers

import (
	"strings"

	"ddgpu/gpu"
)

// AfterForward calls f with each value that Forward computes, its layer's name and its shape.
func (i *Instance) AfterForward(f func(layer string, s Shape, at gpu.Ptr)) {
	i.after = func(k int, backward bool) {
		if !backward {
			n := i.plan.Graph.nodes[k]
			f(n.name, n.out[0].shape, i.at[i.plan.nodes[k].out[0]])
		}
	}
}

// LastLayer is the last layer whose name is prefix or below it.
func (g *Graph) LastLayer(prefix string) string {
	last := ""
	for _, n := range g.nodes {
		if _, fan := n.op.(fanOut); !fan && (n.name == prefix || strings.HasPrefix(n.name, prefix+".")) {
			last = n.name
		}
	}
	return last
}
