package diffusion

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"

	"ddgpu/diffusion/checkpoint"
	"ddgpu/diffusion/safetensors"
	"ddgpu/gpu"
	"ddgpu/kernels"
	"ddgpu/layers"
)

// The sets of tensors of a checkpoint.
const (
	modelSet   = "model"
	emaSet     = "ema"
	moment1Set = "adam_m"
	moment2Set = "adam_v"
)

// checkpointsFolder is where a run folder keeps its checkpoints.
const checkpointsFolder = "checkpoints"

// Model is a trained network: its averaged weights and the configuration that it was trained with.
type Model struct {
	Config  Config
	Graph   *layers.Graph
	Weights []float64 // a flat arena, laid out as Graph says
	Step    int64     // updates that the weights have had
}

// OpenModel reads a run folder's newest checkpoint, or one checkpoint folder.
func OpenModel(path string) (*Model, error) {
	folder := path
	if _, err := os.Stat(filepath.Join(path, checkpointsFolder)); err == nil {
		entry, ok, err := checkpoint.Latest(filepath.Join(path, checkpointsFolder))
		if err != nil {
			return nil, err
		}
		if !ok {
			return nil, &checkpoint.Error{Path: path, Err: fmt.Errorf("the run has no checkpoint yet")}
		}
		folder = entry.Path
	}
	c, err := checkpoint.Open(folder)
	if err != nil {
		return nil, err
	}
	m := &Model{Step: c.Manifest.Step}
	if m.Config, err = configOf(c); err != nil {
		return nil, err
	}
	if m.Graph, err = layers.NewUNet2D(m.Config.Model); err != nil {
		return nil, &checkpoint.Error{Path: folder, Err: err}
	}
	m.Weights, err = readSet(c, emaSet, m.Graph, m.Config.precision())
	return m, err
}

// configOf reads the configuration that a checkpoint was made with.
func configOf(c *checkpoint.Checkpoint) (Config, error) {
	var config Config
	d := json.NewDecoder(bytes.NewReader(c.Config))
	d.DisallowUnknownFields()
	if err := d.Decode(&config); err != nil {
		return config, &checkpoint.Error{Path: c.Path, Err: fmt.Errorf("its configuration cannot be read: %w", err)}
	}
	if err := config.Validate(); err != nil {
		return config, &checkpoint.Error{Path: c.Path, Err: err}
	}
	return config, nil
}

// readSet reads a set of tensors into an arena.
func readSet(c *checkpoint.Checkpoint, set string, graph *layers.Graph, r kernels.Precision) ([]float64, error) {
	file, err := c.Set(set)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	arena, err := ReadWeights(file, graph, dtypeOf(r))
	if err != nil {
		return nil, &checkpoint.Error{Path: c.Path, Err: fmt.Errorf("%s: %w", set, err)}
	}
	return arena, nil
}

func dtypeOf(r kernels.Precision) safetensors.DType {
	if r == kernels.FP64 {
		return safetensors.F64
	}
	return safetensors.F32
}

// ReadWeights reads a network's tensors, under their public names and in their public shapes, into an arena. The file must hold these tensors
// of the given type and no others.
func ReadWeights(file *safetensors.File, graph *layers.Graph, dtype safetensors.DType) ([]float64, error) {
	want := make([]safetensors.Info, len(graph.Params))
	for i, p := range graph.Params {
		want[i] = safetensors.Info{Name: p.Name, DType: dtype, Shape: p.Shape}
	}
	if err := checkpoint.Match(file.Infos(), want); err != nil {
		return nil, err
	}
	arena := make([]float64, graph.ArenaElements)
	for _, p := range graph.Params {
		tensor, err := file.Read(p.Name)
		if err != nil {
			return nil, err
		}
		values, err := tensor.Float64s()
		if err != nil {
			return nil, err
		}
		p.FromPublic(arena, values)
	}
	return arena, nil
}

// publicTensors is an arena as tensors with public names and shapes.
func publicTensors(arena []float64, graph *layers.Graph, r kernels.Precision) []safetensors.Tensor {
	tensors := make([]safetensors.Tensor, len(graph.Params))
	for i, p := range graph.Params {
		tensors[i] = realTensor(p.Name, p.Shape, p.ToPublic(arena), r)
	}
	return tensors
}

// realTensor is a tensor in a number type.
func realTensor(name string, shape []int, values []float64, r kernels.Precision) safetensors.Tensor {
	if r == kernels.FP64 {
		return safetensors.FromFloat64s(name, shape, values)
	}
	return safetensors.FromFloat32s(name, shape, gpu.Values[float32](r.AccBytes(values)))
}

// sets names the arenas that a checkpoint holds.
func (r *replica) sets() map[string]gpu.Ptr {
	return map[string]gpu.Ptr{modelSet: r.weights, emaSet: r.ema, moment1Set: r.moment1, moment2Set: r.moment2}
}

// Save writes a checkpoint below dir, complete or not at all, and keeps the newest `keep`, all with 0. The hash covers all of it: equal
// hashes are equal runs, to the bit.
func (t *Trainer) Save(dir string, keep int) (path, hash string, err error) {
	config, err := t.config.checkpointJSON()
	if err != nil {
		return "", "", err
	}
	if err := t.settle(); err != nil {
		return "", "", err
	}
	r := t.replicas[0]
	state := checkpoint.State{Step: t.step, Config: config}
	for _, name := range []string{modelSet, emaSet, moment1Set, moment2Set} {
		state.Sets = append(state.Sets, checkpoint.Set{Name: name, Tensors: func() ([]safetensors.Tensor, error) {
			var arena []float64
			err := r.device.Do(func() (err error) {
				arena, err = readSums(r.device, r.sets()[name], t.graph.ArenaElements, r.precision)
				return err
			})
			if err != nil {
				return nil, err
			}
			return publicTensors(arena, t.graph, r.precision), nil
		}})
	}
	return checkpoint.Save(dir, state, keep)
}

// checkpointJSON is the configuration without what may differ between runs that compute the same: the label, how the batch is cut, where the
// images lie and in which format, and what is reported how often.
func (c *Config) checkpointJSON() ([]byte, error) {
	same, general := *c, DefaultConfig()
	same.Name = ""
	same.Data.Path, same.Data.Format = "", general.Data.Format
	same.Train = general.Train
	same.Train.Steps, same.Train.Batch, same.Train.Shards = c.Train.Steps, c.Train.Batch, c.Train.Shards
	return same.JSON()
}

// Restore continues from a checkpoint: weights, moments, averages, step, and the position in the data. The configuration must be the one that
// the checkpoint was made with, apart from what [Config.Identity] leaves out; the error says what differs.
func (t *Trainer) Restore(path string) error {
	c, err := checkpoint.Open(path)
	if err != nil {
		return err
	}
	was, err := configOf(c)
	if err != nil {
		return err
	}
	if d := Difference(was, t.config); d != "" {
		return &ConfigError{Key: d, Reason: fmt.Sprintf("in the configuration now: %s is of another run", path)}
	}
	if err := t.steps.settle.Run(); err != nil {
		return err
	}
	t.steps.pending = 0
	for name := range t.replicas[0].sets() {
		arena, err := readSet(c, name, t.graph, t.config.precision())
		if err != nil {
			return err
		}
		b := t.replicas[0].precision.AccBytes(arena)
		err = t.machine.Each(func(d *gpu.Device) error { return d.Write(t.replicas[d.Index].sets()[name], b) })
		if err != nil {
			return fmt.Errorf("restoring %s from %s: %w", name, path, err)
		}
	}
	if err := t.machine.Each(func(d *gpu.Device) error { return t.replicas[d.Index].roundWeights() }); err != nil {
		return fmt.Errorf("restoring %s: %w", path, err)
	}
	t.step = c.Manifest.Step
	t.startLoader()
	return nil
}
