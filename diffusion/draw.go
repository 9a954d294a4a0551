package diffusion

import (
	"context"
	"errors"
	"fmt"

	"ddgpu/diffusion/sampler"
	"ddgpu/diffusion/schedule"
	"ddgpu/gpu"
	"ddgpu/kernels"
	"ddgpu/layers"
)

// SampleRequest says which images to draw. An image is decided by the weights, the sampler, the seed, its number and its label; not by the
// batch, nor by which device draws it.
type SampleRequest struct {
	N      int
	First  uint64 // number of the first image
	Seed   uint64
	Labels []int32 // one for each image, or nil without classes
	// Progress is called after each sampling step with how many steps of all are done, from one goroutine; it may be nil.
	Progress func(step, steps int)
}

// Generator draws images from a trained network on all devices of a machine.
type Generator struct {
	machine *gpu.Machine
	drawers []*drawer
	loaded  []*loaded
}

// loaded is the weights that a Generator put on a device.
type loaded struct {
	pool
	library *kernels.Library
	weights gpu.Ptr
}

func (l *loaded) load(arena []float64) (err error) {
	if l.library, err = kernels.Load(l.device, l.precision); err != nil {
		return err
	}
	if l.weights, err = l.sums("the parameters", int64(len(arena))); err != nil {
		return err
	}
	return l.device.Write(l.weights, l.precision.AccBytes(arena))
}

// NewGenerator puts a model on every device; each draws up to batch images at once.
func NewGenerator(m *gpu.Machine, model *Model, batch int) (*Generator, error) {
	if batch < 1 {
		return nil, fmt.Errorf("a sampling batch of %d images: want at least 1", batch)
	}
	noise, err := schedule.New(model.Config.Schedule)
	if err != nil {
		return nil, &ConfigError{Key: "schedule", Reason: err.Error()}
	}
	g := &Generator{machine: m, drawers: make([]*drawer, len(m.Devices)), loaded: make([]*loaded, len(m.Devices))}
	err = m.Each(func(d *gpu.Device) (err error) {
		l := &loaded{pool: pool{device: d, precision: model.Config.precision()}}
		g.loaded[d.Index] = l
		if err := l.load(model.Weights); err != nil {
			return err
		}
		g.drawers[d.Index], err = newDrawer(l.library, model.Graph, noise, &model.Config, l.weights, batch)
		return err
	})
	if err != nil {
		return nil, errors.Join(err, g.Close())
	}
	return g, nil
}

// Sample draws images, [N][H][W][C] in [−1, 1] (beyond where the sampler does not clip).
func (g *Generator) Sample(ctx context.Context, r SampleRequest) ([]float32, error) {
	return draw(ctx, g.machine, g.drawers, r)
}

// Close frees what the generator holds on the devices.
func (g *Generator) Close() error {
	return g.machine.Each(func(d *gpu.Device) error {
		var errs []error
		if w := g.drawers[d.Index]; w != nil {
			errs = append(errs, w.close())
		}
		if l := g.loaded[d.Index]; l != nil {
			errs = append(errs, l.free())
			if l.library != nil {
				errs = append(errs, l.library.Close())
			}
		}
		return errors.Join(errs...)
	})
}

// drawer runs the network forward on one device, to sample and to validate. Its methods run on the device's thread.
type drawer struct {
	pool
	config   *Config
	graph    *layers.Graph
	stream   *gpu.Stream
	queue    *kernels.Queue
	instance *layers.Instance
	weights  layers.Weights
	batch    int
	rows     []sampler.Row

	x, labels, table, state        gpu.Ptr
	images, roots, lossOf          gpu.Ptr // of the validation
	hostStates, hostX, hostLabels  []byte
	hostImages, hostLoss           []byte
	stepping, validating, starting *gpu.Graph
	ends                           [drawAhead]*gpu.Event // of the steps under way
	trace                          *tracing              // of the step that is queued, or nil
}

// drawAhead is how many sampling steps are queued before the first of them is waited for: enough that the device always has the next one,
// few enough that an interruption does not wait long.
const drawAhead = 4

func newDrawer(l *kernels.Library, graph *layers.Graph, noise *schedule.Schedule, c *Config, weights gpu.Ptr, batch int) (*drawer, error) {
	w := &drawer{pool: pool{device: l.Device(), precision: l.Precision()}, config: c, graph: graph, weights: layers.Weights{Arena: weights}, batch: batch}
	if err := w.build(l, noise); err != nil {
		return nil, errors.Join(err, w.close())
	}
	return w, nil
}

func (w *drawer) build(l *kernels.Library, noise *schedule.Schedule) (err error) {
	d := w.device
	if w.rows, err = sampler.Table(noise, w.config.Objective, w.config.Sampler); err != nil {
		return &ConfigError{Key: "sampler", Reason: err.Error()}
	}
	if w.stream, err = d.NewStream(); err != nil {
		return err
	}
	w.queue = l.NewQueue(w.stream)
	for i := range w.ends {
		if w.ends[i], err = d.NewMarker(); err != nil {
			return err
		}
	}
	if w.weights.Matrices, err = w.matrices(w.graph.ArenaElements); err != nil {
		return err
	}
	plan, err := w.graph.Plan(layers.PlanOptions{Batch: w.batch, Precision: w.precision})
	if err != nil {
		return err
	}
	if w.instance, err = plan.Instantiate(d, l); err != nil {
		return err
	}
	w.instance.Watch(w.begin, w.end)
	batch, size := int64(w.batch), w.precision.AccSize()
	pixels := int64(w.config.imageShape().Bytes())
	for _, v := range []struct {
		at    *gpu.Ptr
		host  *[]byte // nil where the device's memory has no counterpart
		what  string
		bytes int64
	}{
		{&w.x, &w.hostX, "the images", batch * pixels * size},
		{&w.labels, &w.hostLabels, "the labels", batch * 4},
		{&w.images, &w.hostImages, "the images to validate on", batch * pixels},
		{&w.lossOf, &w.hostLoss, "the losses", batch * size},
		{&w.table, nil, "the sampler's coefficients", int64(len(w.rows)) * kernels.SampleRowLength * size},
		{&w.roots, nil, "the noise schedule", int64(2*noise.T()) * size},
		{&w.state, nil, "the step's state", kernels.StepStateSize},
	} {
		if *v.at, err = w.bytes(v.what, v.bytes); err != nil {
			return err
		}
		if v.host == nil {
			continue
		}
		if *v.host, err = w.host(v.what, v.bytes); err != nil {
			return err
		}
	}
	if w.hostStates, err = w.host("the steps' states", int64(len(w.rows))*kernels.StepStateSize); err != nil {
		return err
	}
	if err := errors.Join(d.Write(w.table, w.precision.AccBytes(w.sampleTable())), d.Write(w.roots, w.precision.AccBytes(noise.Roots()))); err != nil {
		return err
	}
	return w.capture(pixels)
}

// sampleTable is the sampler's rows as kernels.SampleUpdate reads them.
func (w *drawer) sampleTable() []float64 {
	var table []float64
	for _, r := range w.rows {
		table = append(table, float64(r.Index)*w.config.timeScale(), r.A, r.B, r.C, r.D, r.E, r.Sigma, r.Clip)
	}
	return table
}

func (w *drawer) capture(pixels int64) (err error) {
	q, x := w.queue, w.instance
	// x_T ~ N(0, I)
	if w.starting, err = w.stream.Capture(func() error {
		q.SampleStart(w.batch, pixels, w.x, x.X, w.state)
		return q.Err()
	}); err != nil {
		return err
	}
	if w.stepping, err = w.stream.Capture(w.step); err != nil {
		return err
	}
	w.validating, err = w.stream.Capture(func() error {
		noise := w.config.noise(w.batch, 0, false)
		q.NoiseAdd(noise, x.X, x.Time, w.images, w.state, w.roots, w.config.timeScale())
		if err := w.forward(); err != nil {
			return err
		}
		q.Loss(noise, w.config.objective(), 0, w.lossOf, x.Y, w.images, w.state, w.roots, 0)
		return q.Err()
	})
	return err
}

// forward queues the network.
func (w *drawer) forward() error {
	if w.graph.Classes > 0 {
		w.beginOther("labels")
		err := w.stream.Copy(w.instance.Labels, w.labels, int64(w.batch)*4)
		w.end()
		if err != nil {
			return err
		}
	}
	w.instance.Forward(w.queue, w.weights, 0, 0)
	return w.queue.Err()
}

// step queues one step of any first-order sampler: x ← C·x̂_0 + D·x + E·f(x, n) + Σ·z.
func (w *drawer) step() error {
	q, x := w.queue, w.instance
	w.beginOther("time")
	q.SampleTime(w.batch, x.Time, w.table, w.state)
	w.end()
	if err := w.forward(); err != nil {
		return err
	}
	w.beginOther("update")
	q.SampleUpdate(w.batch, int64(w.config.imageShape().Bytes()), w.x, x.X, x.Y, w.table, w.state)
	w.end()
	return q.Err()
}

// begin and end are around what is queued for a layer of the network, or for something else.
func (w *drawer) begin(l layers.Launches) { w.trace.begin(w.stream, ComputeStream, l) }
func (w *drawer) beginOther(what string)  { w.begin(layers.Launches{Layer: what}) }
func (w *drawer) end()                    { w.trace.end() }

// traceStep runs two sampling steps of whatever x is, and notes the second, which is queued while the first runs.
func (w *drawer) traceStep() (spans []Span, err error) {
	states := gpu.Values[kernels.StepState](w.hostStates)
	states[0] = kernels.StepState{}
	err = errors.Join(w.roundWeights(), w.putLabels(nil, 0), w.stream.Upload(w.state, w.hostStates[:kernels.StepStateSize]),
		w.starting.Launch(w.stream), w.stepping.Launch(w.stream))
	if err != nil {
		return nil, err
	}
	if w.trace, err = startTrace(w.device, w.stream); err == nil {
		err = w.step()
	}
	trace := w.trace
	w.trace = nil
	if err := errors.Join(err, w.stream.Sync()); err != nil {
		return nil, errors.Join(err, trace.close())
	}
	return trace.read()
}

func (w *drawer) close() error {
	var errs []error
	if w.stream != nil {
		errs = append(errs, w.stream.Sync())
	}
	for _, g := range []*gpu.Graph{w.starting, w.stepping, w.validating} {
		if g != nil {
			errs = append(errs, g.Close())
		}
	}
	for _, e := range w.ends {
		if e != nil {
			errs = append(errs, e.Close())
		}
	}
	if w.instance != nil {
		errs = append(errs, w.instance.Close())
	}
	errs = append(errs, w.free())
	if w.stream != nil {
		errs = append(errs, w.stream.Close())
	}
	return errors.Join(errs...)
}

// roundWeights makes the copy of the weights that matrix products take, from the weights as they are now.
func (w *drawer) roundWeights() error {
	if w.weights.Matrices != 0 {
		w.queue.Round(w.graph.ArenaElements, w.weights.Matrices, w.weights.Arena)
	}
	return w.queue.Err()
}

// putLabels uploads the labels of images first … of the request; those beyond its end are drawn and dropped.
func (w *drawer) putLabels(labels []int32, first int) error {
	host := gpu.Values[int32](w.hostLabels)
	for i := range host {
		host[i] = 0
		if first+i < len(labels) {
			host[i] = labels[first+i]
		}
	}
	return w.stream.Upload(w.labels, w.hostLabels)
}

// sample draws the images first … first+batch of a request into out.
func (w *drawer) sample(ctx context.Context, r SampleRequest, first int, out []float32, progress func()) error {
	if err := errors.Join(w.roundWeights(), w.putLabels(r.Labels, first)); err != nil {
		return err
	}
	for i, states := 0, gpu.Values[kernels.StepState](w.hostStates); i < len(w.rows); i++ {
		states[i] = kernels.StepState{Seed: r.Seed, Step: uint64(i), First: r.First + uint64(first)}
	}
	end := func(i int) error { // of step i
		if err := w.ends[i%drawAhead].Sync(); err != nil {
			return err
		}
		if progress != nil {
			progress()
		}
		return nil
	}
	for i := range w.rows {
		if i >= drawAhead {
			if err := end(i - drawAhead); err != nil {
				return err
			}
		}
		if err := ctx.Err(); err != nil {
			return errors.Join(err, w.stream.Sync())
		}
		if err := w.stream.Upload(w.state, w.hostStates[i*kernels.StepStateSize:(i+1)*kernels.StepStateSize]); err != nil {
			return err
		}
		if i == 0 {
			if err := w.starting.Launch(w.stream); err != nil {
				return err
			}
		}
		if err := w.stepping.Launch(w.stream); err != nil {
			return err
		}
		if err := w.stream.Record(w.ends[i%drawAhead]); err != nil {
			return err
		}
	}
	if err := w.stream.Download(w.hostX, w.x); err != nil {
		return err
	}
	for i := max(0, len(w.rows)-drawAhead); i < len(w.rows); i++ {
		if err := end(i); err != nil {
			return err
		}
	}
	if err := w.stream.Sync(); err != nil {
		return err
	}
	for i, v := range w.precision.AccValues(w.hostX[:int64(len(out))*w.precision.AccSize()]) {
		out[i] = float32(v)
	}
	return nil
}

// draw divides a request over devices in chunks of a drawer's batch.
func draw(ctx context.Context, m *gpu.Machine, drawers []*drawer, r SampleRequest) ([]float32, error) {
	w := drawers[0]
	if r.N < 1 {
		return nil, fmt.Errorf("%d images to draw: want at least 1", r.N)
	}
	if err := w.checkLabels(r); err != nil {
		return nil, err
	}
	pixels := w.config.imageShape().Bytes()
	images := make([]float32, r.N*pixels)
	chunks := (r.N + w.batch - 1) / w.batch
	ownChunks := (chunks + len(drawers) - 1) / len(drawers) // of device 0, which has the most
	err := m.Each(func(d *gpu.Device) error {
		done := 0
		for c := d.Index; c < chunks; c += len(drawers) {
			first, end := c*w.batch, min((c+1)*w.batch, r.N)
			var progress func()
			if r.Progress != nil && d.Index == 0 {
				progress = func() {
					done++
					r.Progress(done, ownChunks*len(w.rows))
				}
			}
			if err := drawers[d.Index].sample(ctx, r, first, images[first*pixels:end*pixels], progress); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("drawing %d images: %w", r.N, err)
	}
	return images, nil
}

func (w *drawer) checkLabels(r SampleRequest) error {
	if w.graph.Classes == 0 {
		if r.Labels != nil {
			return &ConfigError{Key: "model.num_class_embeds", Reason: "is null: this network draws no particular class"}
		}
		return nil
	}
	if len(r.Labels) != r.N {
		return fmt.Errorf("%d labels for %d images of a network with %d classes", len(r.Labels), r.N, w.graph.Classes)
	}
	for _, l := range r.Labels {
		if l < 0 || int(l) >= w.graph.Classes {
			return fmt.Errorf("class %d: the network has the classes 0 … %d", l, w.graph.Classes-1)
		}
	}
	return nil
}
