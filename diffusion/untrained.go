package diffusion

import "ddgpu/layers"

// NewModel is a network with the weights that training begins with.
func NewModel(c Config) (*Model, error) {
	graph, err := layers.NewUNet2D(c.Model)
	if err != nil {
		return nil, &ConfigError{Key: "model", Reason: err.Error()}
	}
	return &Model{Config: c, Graph: graph, Weights: graph.InitWeights(c.Seed)}, nil
}
