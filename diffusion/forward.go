package diffusion

import (
	"errors"
	"fmt"

	"ddgpu/diffusion/checkpoint"
	"ddgpu/diffusion/safetensors"
	"ddgpu/gpu"
	"ddgpu/kernels"
	"ddgpu/layers"
)

// Pass is one run of a network forward and, with DY, backward, on numbers from elsewhere. Dropout is off.
type Pass struct {
	N      int
	X      []float64 // [N][C][H][W]
	Time   []float64 // [N]: what the network is conditioned on
	Labels []int32   // [N], or nil for a network without classes
	DY     []float64 // gradient of the output, [N][C][H][W], or nil
}

// PassResult is what a Pass gives.
type PassResult struct {
	Y     []float64            // [N][C][H][W]
	Grads []safetensors.Tensor // of every parameter by its public name, and of the input as "x"; with DY
}

// OpenWeights reads a network of a given configuration from a safetensors file with public names, in any floating-point type.
func OpenWeights(path string, model layers.UNet2DConfig) (*Model, error) {
	m := &Model{Config: DefaultConfig()}
	m.Config.Model = model
	var err error
	if m.Graph, err = layers.NewUNet2D(model); err != nil {
		return nil, &ConfigError{Key: "model", Reason: err.Error()}
	}
	file, err := safetensors.Open(path)
	if err != nil {
		return nil, &checkpoint.Error{Path: path, Err: err}
	}
	defer file.Close()
	dtype := safetensors.F32
	if infos := file.Infos(); len(infos) > 0 {
		dtype = infos[0].DType
	}
	if m.Weights, err = ReadWeights(file, m.Graph, dtype); err != nil {
		return nil, &checkpoint.Error{Path: path, Err: err}
	}
	return m, nil
}

// Check says whether the sizes of a Pass fit a network.
func (p *Pass) Check(graph *layers.Graph) error {
	in, out := int(graph.In.Elements())*p.N, int(graph.Out.Elements())*p.N
	switch {
	case p.N < 1 || len(p.X) != in:
		return fmt.Errorf("the input has %d numbers, %d images of %v have %d", len(p.X), p.N, graph.In, in)
	case len(p.Time) != p.N:
		return fmt.Errorf("%d time steps for %d images", len(p.Time), p.N)
	case p.DY != nil && len(p.DY) != out:
		return fmt.Errorf("the output's gradient has %d numbers, %d images of %v have %d", len(p.DY), p.N, graph.Out, out)
	case graph.Classes == 0 && p.Labels != nil:
		return errors.New("the network has no classes, but labels are given")
	case graph.Classes > 0 && len(p.Labels) != p.N:
		return fmt.Errorf("%d labels for %d images: the network has %d classes", len(p.Labels), p.N, graph.Classes)
	}
	for i, l := range p.Labels {
		if l < 0 || int(l) >= graph.Classes {
			return fmt.Errorf("label %d of image %d: the network has the classes 0 … %d", l, i, graph.Classes-1)
		}
	}
	return nil
}

// Run computes the pass on a device, in the precision of the model's configuration.
func (p *Pass) Run(d *gpu.Device, model *Model) (result PassResult, err error) {
	if err := p.Check(model.Graph); err != nil {
		return result, err
	}
	err = d.Do(func() (err error) {
		library, err := kernels.Load(d, model.Config.precision())
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, library.Close()) }()
		result, err = p.run(d, library, model)
		return err
	})
	return result, err
}

// run has the network in memory of its own; it is called inside Do.
func (p *Pass) run(d *gpu.Device, library *kernels.Library, model *Model) (result PassResult, err error) {
	graph, types := model.Graph, library.Precision()
	stream, err := d.NewStream()
	if err != nil {
		return result, err
	}
	defer func() { err = errors.Join(err, stream.Close()) }()
	plan, err := graph.Plan(layers.PlanOptions{Batch: p.N, Train: p.DY != nil, InputGradient: p.DY != nil, Precision: types})
	if err != nil {
		return result, err
	}
	network, err := plan.Instantiate(d, library)
	if err != nil {
		return result, err
	}
	defer func() { err = errors.Join(err, network.Close()) }()
	memory := pool{device: d, precision: types}
	defer func() { err = errors.Join(err, memory.free()) }()
	var weights layers.Weights
	if weights.Arena, err = memory.sums("the parameters", graph.ArenaElements); err != nil {
		return result, err
	}
	if weights.Matrices, err = memory.matrices(graph.ArenaElements); err != nil {
		return result, err
	}
	upload := []struct {
		to    gpu.Ptr
		bytes []byte
	}{
		{weights.Arena, types.AccBytes(model.Weights)},
		{network.X, types.Bytes(toNHWC(p.X, p.N, graph.In))},
		{network.Time, types.AccBytes(p.Time)},
	}
	if p.Labels != nil {
		upload = append(upload, struct {
			to    gpu.Ptr
			bytes []byte
		}{network.Labels, gpu.Bytes(p.Labels)})
	}
	for _, u := range upload {
		if err := d.Write(u.to, u.bytes); err != nil {
			return result, err
		}
	}
	queue := library.NewQueue(stream)
	if weights.Matrices != 0 {
		queue.Round(graph.ArenaElements, weights.Matrices, weights.Arena)
	}
	network.Forward(queue, weights, 0, 0)
	if err := errors.Join(queue.Err(), stream.Sync()); err != nil {
		return result, err
	}
	y, err := readActivations(d, network.Y, int64(p.N)*graph.Out.Elements(), types)
	if err != nil || p.DY == nil {
		return PassResult{Y: toNCHW(y, p.N, graph.Out)}, err
	}
	result.Y = toNCHW(y, p.N, graph.Out)

	// One shard: its gradient is the batch's.
	gradient, err := memory.sums("the gradients", graph.ArenaElements)
	if err != nil {
		return result, err
	}
	if err := d.Write(network.DY, types.Bytes(toNHWC(p.DY, p.N, graph.Out))); err != nil {
		return result, err
	}
	network.Backward(queue, weights, gradient, 0, 0)
	if err := errors.Join(queue.Err(), stream.Sync()); err != nil {
		return result, err
	}
	arena, err := readSums(d, gradient, graph.ArenaElements, types)
	if err != nil {
		return result, err
	}
	result.Grads = publicTensors(arena, graph, types)
	dx, err := readActivations(d, network.DX, int64(len(p.X)), types)
	if err != nil {
		return result, err
	}
	shape := []int{p.N, graph.In.C, graph.In.H, graph.In.W}
	result.Grads = append(result.Grads, realTensor("x", shape, toNCHW(dx, p.N, graph.In), types))
	return result, nil
}

// toNHWC and toNCHW change the order of n images' numbers between PyTorch's and the kernels'.
func toNHWC(v []float64, n int, s layers.Shape) []float64 {
	return reorder(v, n, s.C, s.H*s.W)
}

func toNCHW(v []float64, n int, s layers.Shape) []float64 {
	return reorder(v, n, s.H*s.W, s.C)
}

// reorder is [n][a][b] as [n][b][a].
func reorder(v []float64, n, a, b int) []float64 {
	out := make([]float64, len(v))
	for i := range n {
		from, to := v[i*a*b:(i+1)*a*b], out[i*a*b:(i+1)*a*b]
		for j := range a {
			for k := range b {
				to[k*a+j] = from[j*b+k]
			}
		}
	}
	return out
}
