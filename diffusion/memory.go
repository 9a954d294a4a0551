package diffusion

import (
	"errors"
	"fmt"

	"ddgpu/diffusion/sampler"
	"ddgpu/diffusion/schedule"
	"ddgpu/gpu"
	"ddgpu/kernels"
	"ddgpu/layers"
)

// pool is device memory that is freed together.
type pool struct {
	device    *gpu.Device
	precision kernels.Precision
	memory    []gpu.Ptr
	pinned    [][]byte
}

func (p *pool) bytes(what string, n int64) (gpu.Ptr, error) {
	ptr, err := p.device.Alloc(what, max(n, 1))
	if err == nil {
		p.memory = append(p.memory, ptr)
	}
	return ptr, err
}

// sums is memory for n numbers as parameters and sums are stored.
func (p *pool) sums(what string, n int64) (gpu.Ptr, error) {
	return p.bytes(what, n*p.precision.AccSize())
}

// matrices is memory for a rounded copy of an arena of parameters, or 0 where matrix products take the arena itself.
func (p *pool) matrices(arena int64) (gpu.Ptr, error) {
	if p.precision.Size() == p.precision.AccSize() {
		return 0, nil
	}
	return p.bytes("the rounded weights", arena*p.precision.Size())
}

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

// readSums reads n numbers that are stored as parameters are.
func readSums(d *gpu.Device, at gpu.Ptr, n int64, p kernels.Precision) ([]float64, error) {
	b := make([]byte, n*p.AccSize())
	err := d.Read(b, at)
	return p.AccValues(b), err
}

// readActivations reads n activations.
func readActivations(d *gpu.Device, at gpu.Ptr, n int64, p kernels.Precision) ([]float64, error) {
	b := make([]byte, n*p.Size())
	err := d.Read(b, at)
	return p.Values(b), err
}

// Memory is what one device needs for a training run.
type Memory struct {
	Parameters int64 // of the network, as numbers
	Tensors    int
	Rows       []MemoryRow
	Total      int64 // bytes
	PerImage   int64 // bytes that each further image of a launch costs
	Recompute  int64 // bytes that train.recompute saves, or would save where it is off
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
	p := c.precision()
	part := c.Train.cut(devices, 0, 0)
	train, err := graph.Plan(c.trainPlan(part))
	if err != nil {
		return Memory{}, err
	}
	other := c
	other.Train.Recompute = !c.Train.Recompute
	opposite, err := graph.Plan(other.trainPlan(part))
	if err != nil {
		return Memory{}, err
	}
	draw, err := graph.Plan(layers.PlanOptions{Batch: part.Count, Precision: p})
	if err != nil {
		return Memory{}, err
	}
	arena := graph.ArenaElements * p.AccSize()
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
	if p.Size() != p.AccSize() {
		add("rounded weights", 2*graph.ArenaElements*p.Size())
	}
	add("activations, training", train.Activations)
	add("workspace, training", train.Workspace)
	add("activations, sampling and validation", draw.Activations+draw.Workspace)
	if devices > 1 {
		add("exchange between devices", sliceOf(graph.ArenaElements, devices)*int64(devices)*p.AccSize())
	}
	tables, err := c.tables(devices, part.Count, graph.ArenaElements)
	if err != nil {
		return Memory{}, err
	}
	add("images and tables", tables)
	if part.Count > 0 {
		m.PerImage = (train.Activations + train.Workspace + draw.Activations + draw.Workspace) / int64(part.Count)
	}
	m.Recompute = opposite.Total() - train.Total()
	if !c.Train.Recompute {
		m.Recompute = -m.Recompute
	}
	return m, nil
}

// tables is the memory of what is neither of the network nor of the optimizer: images, labels, states of steps, coefficients and losses, where a
// device trains on batch images at once and validates and samples as many.
func (c *Config) tables(devices, batch int, arena int64) (bytes int64, err error) {
	noise, err := schedule.New(c.Schedule)
	if err != nil {
		return 0, &ConfigError{Key: "schedule", Reason: err.Error()}
	}
	rows, err := sampler.Table(noise, c.Objective, c.Sampler)
	if err != nil {
		return 0, &ConfigError{Key: "sampler", Reason: err.Error()}
	}
	size, image := c.precision().AccSize(), int64(c.imageShape().Bytes())
	_, images := c.Train.local(devices, 0)
	input := new(slot).layout(images, int(image))
	training := StepsAhead*input + (int64(2*noise.T())+int64(max(batch, 1))+kernels.GradNormScratch(arena))*size
	drawing := int64(batch)*(image*size+4+image+size) + (int64(len(rows))*kernels.SampleRowLength+int64(2*noise.T()))*size + kernels.StepStateSize
	return training + drawing, nil
}

// ResolvePrecision replaces auto by what the machine does best: bf16 where all its GPUs have compute capability 8.0 or newer, else fp32.
func (c *Config) ResolvePrecision(m *gpu.Machine) {
	if c.Precision != autoPrecision {
		return
	}
	c.Precision = kernels.BF16.String()
	if m.Host || CheckPrecision(kernels.BF16, m) != nil {
		c.Precision = kernels.FP32.String()
	}
}

const autoPrecision = "auto"

// precision is that of the configuration, which is valid; fp32 for auto.
func (c *Config) precision() kernels.Precision {
	if c.Precision == autoPrecision {
		return kernels.FP32
	}
	p, err := kernels.ParsePrecision(c.Precision)
	if err != nil {
		panic(err) // Validate has refused it
	}
	return p
}

func (c *Config) trainPlan(part cut) layers.PlanOptions {
	return layers.PlanOptions{Batch: part.Count, Train: true, Shards: part.Shards, Precision: c.precision(), Dropout: c.Model.Dropout > 0,
		Recompute: c.Train.Recompute}
}

// CheckPrecision says whether the devices of a machine have a precision.
func CheckPrecision(p kernels.Precision, m *gpu.Machine) error {
	if m.PTX && p == kernels.FP64 {
		return errors.New("fp64 has no PTX: use another, or --devices host")
	}
	if m.Host {
		return nil
	}
	if p == kernels.FP64 {
		return errors.New("fp64 is for the host device alone: use fp32, or --devices host")
	}
	for _, d := range m.Devices {
		if has := d.Major*10 + d.Minor; has < p.Capability() {
			return fmt.Errorf("%v needs a GPU of compute capability %d.%d or newer, device %d (%s) has %d.%d: use fp32", p,
				p.Capability()/10, p.Capability()%10, d.Index, d.Name, d.Major, d.Minor)
		}
	}
	return nil
}
