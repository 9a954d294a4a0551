package main

import (
	"encoding/json"
	"fmt"
	"io"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"ddgpu/cli/pytorch"
	"ddgpu/diffusion"
	"ddgpu/diffusion/safetensors"
	"ddgpu/diffusion/sampler"
	"ddgpu/diffusion/schedule"
	"ddgpu/gpu"
	"ddgpu/kernels"
	"ddgpu/layers"
)

const weightsFile = "weights.safetensors"

// networkModes are the modes of whole networks: with a GPU, CUDA graphs too, since our steps are such.
func (v *versus) networkModes() []string {
	if !v.machine.Host {
		return []string{pytorch.Eager, pytorch.ChannelsLast, pytorch.Compile, pytorch.CompileGraphs}
	}
	return []string{pytorch.Eager, pytorch.ChannelsLast, pytorch.Compile}
}

// networkSubjects are the last rows: the network forward, a training step and a sampling step.
func (v *versus) networkSubjects() []subject {
	c := v.config
	params := func() map[string]any {
		return map[string]any{"model": v.modelParams(), "weights": filepath.Join(v.folder, weightsFile)}
	}
	about := func(batch int) string {
		return fmt.Sprintf("%s, %d parameters, batch %d", c.Name, v.graph.Parameters, batch)
	}
	step := subject{kind: "train_step", images: c.Train.Batch, shape: about(c.Train.Batch), name: trainStep, bound: v.networkBound(), slice: networkSlice, network: true}
	step.params = func() map[string]any {
		p := params()
		for k, value := range v.optimizerParams() {
			p[k] = value
		}
		p["steps"], p["flip"], p["objective"], p["time_scale"] = c.Schedule.Steps, c.Data.Flip, string(c.Objective), timeScale(c)
		return p
	}
	step.build = func(v *versus) (contender, error) { return newTraining(v) }
	forward := subject{kind: "network_forward", images: c.Train.Batch, shape: about(c.Train.Batch), name: "network_forward", bound: v.networkBound(),
		slice: networkSlice / 2, network: true, params: params, build: func(v *versus) (contender, error) { return newForwardPass(v) }}
	sample := subject{kind: "sample_step", images: v.sampling, shape: about(v.sampling), name: sampleStep, bound: 10 * v.networkBound(), slice: networkSlice,
		network: true, unit: benchSamplingSteps, build: func(v *versus) (contender, error) { return newSampling(v) }}
	sample.params = func() map[string]any {
		p := params()
		rows, err := v.samplerRows()
		if err != nil {
			return p // newSampling has the same error
		}
		var list [][]any
		for _, r := range rows {
			list = append(list, rowParams(r, timeScale(c)))
		}
		p["rows"] = list
		return p
	}
	return []subject{forward, step, sample}
}

// timeScale times n is what the network is told of step n.
func timeScale(c diffusion.Config) float64 {
	if c.Conditioning == "rescaled" {
		return 1000 / float64(c.Schedule.Steps)
	}
	return 1
}

// samplingConfig is the preset's sampler with few steps: the time of a step does not depend on their number.
func (v *versus) samplingConfig() diffusion.Config {
	c := v.config
	c.Sampler.Steps, c.Sampler.Spacing = benchSamplingSteps, "even"
	return c
}

func (v *versus) samplerRows() ([]sampler.Row, error) {
	c := v.samplingConfig()
	noise, err := schedule.New(c.Schedule)
	if err != nil {
		return nil, err
	}
	return sampler.Table(noise, c.Objective, c.Sampler)
}

// modelParams is the network's configuration as diffusers has it.
func (v *versus) modelParams() json.RawMessage {
	text, err := json.Marshal(v.config.Model)
	if err != nil {
		panic(err) // plain numbers and strings
	}
	return text
}

// writeWeights writes the network's weights under diffusers' names.
func (v *versus) writeWeights() error {
	var tensors []safetensors.Tensor
	for _, p := range v.graph.Params {
		tensors = append(tensors, floats(p.Name, p.ToPublic(v.model.Weights), p.Shape...))
	}
	return writeFile(filepath.Join(v.folder, weightsFile), func(w io.Writer) error { return safetensors.Write(w, tensors, nil) })
}

// floats is an array of float32.
func floats(name string, values []float64, shape ...int) safetensors.Tensor {
	return safetensors.FromFloat32s(name, shape, gpu.Values[float32](kernels.FP32.Bytes(values)))
}

// given is what a network is shown: images of noise, steps, classes.
type given struct {
	n      int
	x      []float64 // [N][H][W][C]
	time   []float64
	labels []int32
}

func (v *versus) given(n int) given {
	g := given{n: n, x: v.normal(n * int(v.graph.In.Elements())), labels: roundRobin(v.config, 0, n)}
	for range n {
		g.time = append(g.time, float64(v.random.IntN(v.config.Schedule.Steps))*timeScale(v.config))
	}
	return g
}

func (g given) tensors(in layers.Shape) []safetensors.Tensor {
	t := []safetensors.Tensor{floats("x", g.x, g.n, in.H, in.W, in.C), floats("n", g.time, g.n)}
	if g.labels != nil {
		t = append(t, labelsTensor(g.labels))
	}
	return t
}

func labelsTensor(labels []int32) safetensors.Tensor {
	return safetensors.Tensor{Name: "labels", DType: safetensors.I32, Shape: []int{len(labels)}, Data: gpu.Bytes(labels)}
}

// forwardPass is our side of network_forward: the network without gradients, captured.
type forwardPass struct {
	*operation
	instance *layers.Instance
	graph    *gpu.Graph
}

func newForwardPass(v *versus) (contender, error) {
	f := &forwardPass{}
	g := v.given(v.config.Train.Batch)
	c, err := operate(func(o *operation) {
		f.operation = o
		o.tensors = g.tensors(v.graph.In)
		if o.err = f.build(v, g); o.err != nil {
			return
		}
		o.launch = func(q *kernels.Queue) {
			if err := f.graph.Launch(q.Stream()); err != nil {
				q.Fail(err)
			}
		}
	})(v)
	if err != nil {
		return nil, err
	}
	f.operation = c.(*operation)
	return f, nil
}

func (f *forwardPass) build(v *versus, g given) error {
	plan, err := v.graph.Plan(layers.PlanOptions{Batch: g.n, Precision: v.precision})
	if err != nil {
		return err
	}
	if f.instance, err = plan.Instantiate(v.device, f.library); err != nil {
		return err
	}
	f.closers = append(f.closers, f.instance.Close)
	f.total += plan.Total()
	weights := layers.Weights{Arena: f.place("the parameters", wide(v.model.Weights))}
	if v.precision == kernels.BF16 {
		weights.Matrices = f.place("the rounded parameters", v.precision.Bytes(v.model.Weights))
	}
	if f.err != nil {
		return f.err
	}
	for _, u := range []struct {
		at    gpu.Ptr
		bytes []byte
	}{{f.instance.X, v.precision.Bytes(g.x)}, {f.instance.Time, wide(g.time)}, {f.instance.Labels, gpu.Bytes(g.labels)}} {
		if err := v.device.Write(u.at, u.bytes); err != nil {
			return err
		}
	}
	f.graph, err = f.stream.Capture(func() error {
		f.instance.Forward(f.queue, weights, 0, 0)
		return f.queue.Err()
	})
	if err != nil {
		return err
	}
	f.closers = append(f.closers, f.graph.Close)
	count := g.n * int(v.graph.Out.Elements())
	f.results = append(f.results, output{"y", f.instance.Y, count, v.precision.Values, int64(count) * v.precision.Size()})
	return nil
}

// whole is what the two steps share: arrays, and the time of Go's clock, in which the host's part of a step counts.
type whole struct {
	v     *versus
	taken int64
}

func (w *whole) files() (inputs, reference string) { return w.v.arrays() }
func (w *whole) bytes() int64                      { return w.taken }

// training is our side of train_step: whole steps of the trainer. What is compared before is every gradient of the network.
type training struct {
	whole
	trainer *diffusion.Trainer
	grads   []float64 // of all parameters, in the order of their names
}

func newTraining(v *versus) (contender, error) {
	t := &training{whole: whole{v: v}}
	c := v.config
	n, in := c.Train.Batch, v.graph.In
	g := v.given(n)
	dy := v.normal(n * int(v.graph.Out.Elements()))
	pass := diffusion.Pass{N: n, X: nchw(g.x, n, in), Time: g.time, Labels: g.labels, DY: nchw(dy, n, v.graph.Out)}
	result, err := pass.Run(v.device, v.model)
	if err != nil {
		return nil, err
	}
	slices.SortFunc(result.Grads, func(a, b safetensors.Tensor) int { return strings.Compare(a.Name, b.Name) })
	for _, tensor := range result.Grads {
		if tensor.Name == "x" {
			continue
		}
		values, err := tensor.Float64s()
		if err != nil {
			return nil, err
		}
		t.grads = append(t.grads, values...)
	}
	noise, err := schedule.New(c.Schedule)
	if err != nil {
		return nil, err
	}
	images := make([]byte, n*int(in.Elements()))
	for i := range images {
		images[i] = byte(v.random.Uint32())
	}
	shape := []int{n, in.H, in.W, in.C}
	tensors := append(g.tensors(in), floats("dy", dy, n, v.graph.Out.H, v.graph.Out.W, v.graph.Out.C), floats("roots", noise.Roots(), 2, c.Schedule.Steps),
		safetensors.Tensor{Name: "images", DType: safetensors.U8, Shape: shape, Data: images})
	if err := v.writeTensors(tensors); err != nil {
		return nil, err
	}
	t.taken, err = memoryTaken(v.device, func() error {
		t.trainer, err = diffusion.NewTrainer(v.machine, c, noiseImagesFor(c), nil)
		return err
	})
	return t, err
}

// nchw is n images as PyTorch orders them.
func nchw(x []float64, n int, s layers.Shape) []float64 {
	out := make([]float64, len(x))
	for i := range n * s.H * s.W {
		image, pixel := i/(s.H*s.W), i%(s.H*s.W)
		for c := range s.C {
			out[(image*s.C+c)*s.H*s.W+pixel] = x[i*s.C+c]
		}
	}
	return out
}

func (t *training) check() (float64, error) { return t.against("grads", t.grads) }

// against compares with a tensor of the reference.
func (w *whole) against(name string, got []float64) (float64, error) {
	file, err := w.v.openReference()
	if err != nil {
		return 0, err
	}
	defer file.Close()
	return distanceTo(file, name, got)
}

// run queues steps ahead, as training does, and has read the results of all at its end.
func (t *training) run(times int) (time.Duration, error) {
	start := time.Now()
	for range times {
		if t.trainer.Pending() == diffusion.StepsAhead {
			if _, err := t.trainer.Result(); err != nil {
				return 0, err
			}
		}
		if err := t.trainer.Queue(t.v.ctx); err != nil {
			return 0, err
		}
	}
	for t.trainer.Pending() > 0 {
		if _, err := t.trainer.Result(); err != nil {
			return 0, err
		}
	}
	return time.Since(start), nil
}

func (t *training) close() error {
	if t.trainer == nil {
		return nil
	}
	return t.trainer.Close()
}

// drawn is our side of sample_step: whole batches of a few steps. What is compared before is such a batch, with the same noise.
type drawn struct {
	whole
	generator *diffusion.Generator
	labels    []int32
	images    []float64
}

func newSampling(v *versus) (contender, error) {
	d := &drawn{whole: whole{v: v}, labels: roundRobin(v.config, 0, v.sampling)}
	rows, err := v.samplerRows()
	if err != nil {
		return nil, err
	}
	model := *v.model
	model.Config = v.samplingConfig()
	if d.taken, err = memoryTaken(v.device, func() (err error) {
		d.generator, err = diffusion.NewGenerator(v.machine, &model, v.sampling)
		return err
	}); err != nil {
		return d, err
	}
	images, err := d.generator.Sample(v.ctx, d.request(v.seed))
	if err != nil {
		return nil, join(err, d.close())
	}
	for _, x := range images {
		d.images = append(d.images, float64(x))
	}
	in, state := v.graph.In, kernels.StepState{Seed: v.seed}
	n, perImage := v.sampling, int(in.Elements())
	var z []float64
	for i := range rows {
		z = append(z, normalsOf(state, kernels.DrawSampling, uint64(i), n, perImage)...)
	}
	tensors := []safetensors.Tensor{floats("start", normalsOf(state, kernels.DrawStart, 0, n, perImage), n, in.H, in.W, in.C),
		floats("z", z, len(rows), n, in.H, in.W, in.C)}
	if d.labels != nil {
		tensors = append(tensors, labelsTensor(d.labels))
	}
	return d, v.writeTensors(tensors)
}

func (d *drawn) request(seed uint64) diffusion.SampleRequest {
	return diffusion.SampleRequest{N: d.v.sampling, Seed: seed, Labels: d.labels}
}

func (d *drawn) check() (float64, error) { return d.against("x", d.images) }

func (d *drawn) run(times int) (time.Duration, error) {
	start := time.Now()
	for i := range times / benchSamplingSteps {
		if _, err := d.generator.Sample(d.v.ctx, d.request(uint64(i))); err != nil {
			return 0, err
		}
	}
	return time.Since(start), nil
}

func (d *drawn) close() error {
	if d.generator == nil {
		return nil
	}
	return d.generator.Close()
}
