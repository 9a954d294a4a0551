package diffusion

import (
	"errors"

	"ddgpu/gpu"
	"ddgpu/kernels"
	"ddgpu/layers"
)

// pool is device memory that is freed together.
type pool struct {
	device *gpu.Device
	real   kernels.Real
	memory []gpu.Ptr
	pinned [][]byte
}

func (p *pool) bytes(what string, n int64) (gpu.Ptr, error) {
	ptr, err := p.device.Alloc(what, max(n, 1))
	if err == nil {
		p.memory = append(p.memory, ptr)
	}
	return ptr, err
}

func (p *pool) reals(what string, n int64) (gpu.Ptr, error) { return p.bytes(what, n*p.real.Size()) }

func (p *pool) host(what string, n int64) ([]byte, error) {
	b, err := p.device.AllocPinned(what, max(n, 1))
	if err == nil {
		p.pinned = append(p.pinned, b)
	}
	return b, err
}

func (p *pool) free() error {
	var errs []error
	for _, ptr := range p.memory {
		errs = append(errs, p.device.Free(ptr))
	}
	for _, b := range p.pinned {
		errs = append(errs, p.device.FreePinned(b))
	}
	p.memory, p.pinned = nil, nil
	return errors.Join(errs...)
}

// readReals reads n values from a device.
func readReals(d *gpu.Device, p gpu.Ptr, n int64, r kernels.Real) ([]float64, error) {
	b := make([]byte, n*r.Size())
	err := d.Read(b, p)
	return r.Values(b), err
}

// Memory is what one device needs for a training run.
type Memory struct {
	Parameters int64 // of the network, as numbers
	Tensors    int
	Rows       []MemoryRow
	Total      int64 // bytes
	PerImage   int64 // bytes that each further image of a launch costs
}

// MemoryRow is one kind of memory.
type MemoryRow struct {
	Name  string
	Bytes int64
}

// PlanMemory works out the memory of each of so many devices, without opening one.
func PlanMemory(c Config, devices int) (Memory, error) {
	if err := c.Train.checkDevices(devices); err != nil {
		return Memory{}, err
	}
	graph, err := layers.NewUNet2D(c.Model)
	if err != nil {
		return Memory{}, &ConfigError{Key: "model", Reason: err.Error()}
	}
	r := c.real()
	part := c.Train.cut(devices, 0, 0)
	train, err := graph.Plan(c.trainPlan(part))
	if err != nil {
		return Memory{}, err
	}
	draw, err := graph.Plan(layers.PlanOptions{Batch: part.Count, Real: r})
	if err != nil {
		return Memory{}, err
	}
	arena := graph.ArenaElements * r.Size()
	m := Memory{Parameters: graph.Parameters, Tensors: len(graph.Params)}
	add := func(name string, bytes int64) {
		m.Rows = append(m.Rows, MemoryRow{name, bytes})
		m.Total += bytes
	}
	add("parameters", arena)
	add("gradients", arena*int64(c.Train.treeLevels()+1))
	add("gradients of shards", arena*int64(part.Shards.Count))
	add("Adam's moments", 2*arena)
	add("averaged weights", arena)
	add("activations, training", train.Activations)
	add("workspace, training", train.Workspace)
	add("activations, sampling and validation", draw.Activations+draw.Workspace)
	if devices > 1 {
		add("exchange between devices", arena)
	}
	if part.Count > 0 {
		m.PerImage = (train.Activations + train.Workspace + draw.Activations + draw.Workspace) / int64(part.Count)
	}
	return m, nil
}

func (c *Config) real() kernels.Real {
	if c.Precision == "f64" {
		return kernels.F64
	}
	return kernels.F32
}

func (c *Config) trainPlan(part cut) layers.PlanOptions {
	return layers.PlanOptions{Batch: part.Count, Train: true, Shards: part.Shards, Real: c.real(), Dropout: c.Model.Dropout > 0}
}
