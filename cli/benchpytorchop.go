package main

import (
	"fmt"
	"io"
	"math"
	"path/filepath"
	"time"

	"ddgpu/diffusion/safetensors"
	"ddgpu/gpu"
	"ddgpu/kernels"
)

// operation is our side of a single operation: device memory and launches.
type operation struct {
	v       *versus
	library *kernels.Library
	stream  *gpu.Stream
	queue   *kernels.Queue
	launch  func(q *kernels.Queue)

	closers []func() error // the last first
	memory  []gpu.Ptr
	total   int64
	tensors []safetensors.Tensor // for PyTorch
	results []output
	err     error
}

// output is what both sides compute.
type output struct {
	name   string
	at     gpu.Ptr
	count  int
	values func([]byte) []float64
	bytes  int64
}

// operate makes the memory and the launches of an operation that `build` describes, and launches it once.
func operate(build func(o *operation)) func(*versus) (contender, error) {
	return func(v *versus) (contender, error) {
		o := &operation{v: v}
		err := v.device.Do(func() (err error) {
			if o.library, err = kernels.Load(v.device, v.precision); err != nil {
				return err
			}
			if o.stream, err = v.device.NewStream(); err != nil {
				return err
			}
			o.queue = o.library.NewQueue(o.stream)
			build(o)
			if o.err != nil {
				return o.err
			}
			o.launch(o.queue)
			return join(o.queue.Err(), o.stream.Sync())
		})
		if err == nil {
			err = v.writeTensors(o.tensors)
		}
		if err != nil {
			return nil, join(err, o.close())
		}
		return o, nil
	}
}

const (
	inputsFile    = "inputs.safetensors"
	referenceFile = "reference.safetensors"
)

func (v *versus) writeTensors(tensors []safetensors.Tensor) error {
	return writeFile(filepath.Join(v.folder, inputsFile), func(w io.Writer) error { return safetensors.Write(w, tensors, nil) })
}

// arrays are where a subject's arrays travel.
func (v *versus) arrays() (inputs, reference string) {
	return filepath.Join(v.folder, inputsFile), filepath.Join(v.folder, referenceFile)
}

func (o *operation) files() (inputs, reference string) { return o.v.arrays() }

func (o *operation) bytes() int64 { return o.total }

func (o *operation) run(times int) (took time.Duration, err error) {
	err = o.v.device.Do(func() error {
		took, err = timed(o.v.device, o.stream, func() error {
			for range times {
				o.launch(o.queue)
			}
			return o.queue.Err()
		})
		return err
	})
	return took, err
}

// timed is the time between two events around what f queues.
func timed(d *gpu.Device, s *gpu.Stream, f func() error) (took time.Duration, err error) {
	start, err := d.NewEvent()
	if err != nil {
		return 0, err
	}
	defer func() { err = join(err, start.Close()) }()
	end, err := d.NewEvent()
	if err != nil {
		return 0, err
	}
	defer func() { err = join(err, end.Close()) }()
	for _, step := range []func() error{
		func() error { return s.Record(start) }, f, func() error { return s.Record(end) }, end.Sync,
	} {
		if err := step(); err != nil {
			return 0, err
		}
	}
	took, err = end.Since(start)
	return max(took, 1), err
}

func (o *operation) check() (worst float64, err error) {
	file, err := o.v.openReference()
	if err != nil {
		return 0, err
	}
	defer file.Close()
	for _, r := range o.results {
		b := make([]byte, r.bytes)
		if err := o.v.device.Do(func() error { return o.v.device.Read(b, r.at) }); err != nil {
			return 0, err
		}
		e, err := distanceTo(file, r.name, r.values(b))
		if err != nil {
			return 0, err
		}
		worst = max(worst, e) // NaN where any is
	}
	return worst, nil
}

// openReference opens what PyTorch computed in float64.
func (v *versus) openReference() (*safetensors.File, error) {
	_, path := v.arrays()
	file, err := safetensors.Open(path)
	if err != nil {
		return nil, fmt.Errorf("reading PyTorch's reference: %w", err)
	}
	return file, nil
}

// distanceTo is ‖got − want‖/‖want‖ for a tensor of a file.
func distanceTo(file *safetensors.File, name string, got []float64) (float64, error) {
	tensor, err := file.Read(name)
	if err != nil {
		return 0, fmt.Errorf("reading PyTorch's reference: %w", err)
	}
	want, err := tensor.Float64s()
	if err != nil {
		return 0, fmt.Errorf("reading PyTorch's reference: %w", err)
	}
	if len(got) != len(want) {
		return 0, fmt.Errorf("PyTorch's reference has %d values of %s, ours has %d", len(want), name, len(got))
	}
	var difference, norm float64
	for i, w := range want {
		d := got[i] - w
		difference += d * d
		norm += w * w
	}
	return math.Sqrt(difference / norm), nil
}

func (o *operation) close() error {
	return o.v.device.Do(func() error {
		var err error
		if o.stream != nil {
			err = o.stream.Sync()
		}
		for i := len(o.closers) - 1; i >= 0; i-- {
			err = join(err, o.closers[i]())
		}
		for _, p := range o.memory {
			err = join(err, o.v.device.Free(p))
		}
		if o.stream != nil {
			err = join(err, o.stream.Close())
		}
		if o.library != nil {
			err = join(err, o.library.Close())
		}
		return err
	})
}

// --- what builds are written with

func (o *operation) alloc(what string, bytes int64) gpu.Ptr {
	if o.err != nil {
		return 0
	}
	p, err := o.v.device.Alloc(what, max(bytes, 1))
	if err != nil {
		o.err = err
		return 0
	}
	o.memory = append(o.memory, p)
	o.total += bytes
	return p
}

func (o *operation) place(what string, b []byte) gpu.Ptr {
	p := o.alloc(what, int64(len(b)))
	if o.err == nil {
		o.err = o.v.device.Write(p, b)
	}
	return p
}

// normal is n draws from N(0, 1), such as products take them without rounding: both sides then compute with the same numbers.
func (o *operation) normal(n int) []float64 { return o.v.normal(n) }

func (v *versus) normal(n int) []float64 {
	x := make([]float64, n)
	for i := range x {
		x[i] = v.random.NormFloat64()
		if v.precision == kernels.TF32 { // 10 bits of the fraction
			x[i] = float64(math.Float32frombits(math.Float32bits(float32(x[i])) &^ (1<<13 - 1)))
		}
	}
	return v.precision.Values(v.precision.Bytes(x))
}

// give lets PyTorch have an array under a name.
func (o *operation) give(name string, values []float64, shape ...int) {
	o.tensors = append(o.tensors, floats(name, values, shape...))
}

// in is an activation, or a weight of a product, that both sides get: fresh normals.
func (o *operation) in(name string, shape ...int) gpu.Ptr {
	x := o.normal(size(shape))
	o.give(name, x, shape...)
	return o.place(name, o.v.precision.Bytes(x))
}

// inWide is a parameter or a value of a sum that both sides get, never less than float32.
func (o *operation) inWide(name string, values []float64, shape ...int) gpu.Ptr {
	o.give(name, values, shape...)
	return o.place(name, wide(values))
}

// out is an activation that both sides compute, full of NaNs until then.
func (o *operation) out(name string, shape ...int) gpu.Ptr {
	n := size(shape)
	p := o.scratch(n)
	o.results = append(o.results, output{name, p, n, o.v.precision.Values, int64(n) * o.v.precision.Size()})
	return p
}

// outWide is the same of parameters and sums.
func (o *operation) outWide(name string, n int) gpu.Ptr {
	p := o.scratchWide(n)
	o.compare(name, p, n)
	return p
}

// compare makes float32 values that a launch leaves at p a result.
func (o *operation) compare(name string, p gpu.Ptr, n int) {
	o.results = append(o.results, output{name, p, n, kernels.FP32.Values, 4 * int64(n)})
}

func (o *operation) scratch(n int) gpu.Ptr     { return o.place("a result", o.v.precision.Bytes(nans(n))) }
func (o *operation) scratchWide(n int) gpu.Ptr { return o.place("a result", wide(nans(n))) }

func (o *operation) state(s kernels.StepState) gpu.Ptr {
	return o.place("the step's state", gpu.Bytes([]kernels.StepState{s}))
}

// wide is values as the kernels have parameters, sums and statistics.
func wide(values []float64) []byte { return kernels.FP32.Bytes(values) }

func nans(n int) []float64 {
	v := make([]float64, n)
	for i := range v {
		v[i] = math.NaN()
	}
	return v
}

func size(shape []int) int {
	n := 1
	for _, d := range shape {
		n *= d
	}
	return n
}
