// Package selftest holds every operation of package kernels once: random inputs for many shapes, a float64 reference in plain loops, and
// what one launch reads, writes and computes. [Run] compares the kernels with the references on whatever device there is, [Bench] measures them.
//
// An operation is added by a function that returns its [Op], listed in [All]:
//
//	func siluCase(n int) Case {
//		return Case{Shape: fmt.Sprint(n), Bytes: 8 * float64(n), FLOPs: 5 * float64(n), Build: func(b *Builder) {
//			x := b.Normal(n)
//			y := b.Out("y", b.Want(n, func() []float64 { … }))
//			in := b.In(x)
//			b.Launch(func(q *kernels.Queue) { q.SiLUForward(int64(n), y, in) })
//		}}
//	}
package selftest

import (
	"fmt"
	"hash/fnv"
	"math/rand/v2"
	"slices"

	"ddgpu/gpu"
	"ddgpu/kernels"
)

// Op is an operation with the shapes that it is tested on and the shapes that it is timed on.
type Op struct {
	Name  string
	Cases []Case
	Bench []Case
}

// Case is one shape of an operation.
type Case struct {
	Shape string
	// Bytes is what the launches must read and write at least in float32 (twice that in float64), FLOPs their arithmetic; for Bench.
	Bytes, FLOPs float64
	// Large cases are left out where Options.Short is set.
	Large bool
	// Bound is the error that is allowed, 0 for the precision's own.
	Bound float64
	// Build makes inputs, outputs and launches.
	Build func(b *Builder)
}

// All is every operation.
func All() []Op {
	return generated(slices.Concat(
		convOps(),
		attentionOps(),
		diffusionOps(),
		embeddingOps(),
		optimizerOps(),
		normOps(),
		elementOps(),
		resampleOps(),
		reduceOps(),
		peakOps(),
	))
}

// Options choose what runs. The zero value runs everything once on fresh random inputs.
type Options struct {
	Seed  uint64 // of the inputs; 0: fresh
	Short bool   // leaves out large cases
	// PerKernel leaves out a case all of whose kernels have been launched by so many others; 0: none.
	PerKernel int
	// Compiled compares each case, on a device that interprets PTX, with the kernels that were compiled for the CPU too: the outputs may differ
	// by CompiledBound.
	Compiled bool
	Ops      []Op              // nil: All
	Match    func(string) bool // operations by name; nil: all of them
	Repeats  int               // of a measurement, at most; 0: 20
	Done     func(Result)      // called after each case of Run
	Timed    func(Timing)      // called after each case of Bench
}

// ops is what the options select.
func (o *Options) ops() []Op {
	ops := o.Ops
	if ops == nil {
		ops = All()
	}
	var selected []Op
	for _, op := range ops {
		if o.Match == nil || o.Match(op.Name) {
			selected = append(selected, op)
		}
	}
	return selected
}

// Result is one case compared with its reference.
type Result struct {
	Op, Shape string
	Error     float64  // the greatest ‖Δ‖/‖reference‖ of the outputs
	Output    string   // the output that has it
	Bound     float64  // what is allowed
	Problem   string   // what else is wrong, or empty: memory overwritten, other bits when the work is divided otherwise
	Hash      [32]byte // of all output bits
	Kernels   []string // that the case launched
	Seed      uint64   // Options.Seed to see the same again

	values [][]float64 // of the outputs, until they have been compared
	least  []float64   // of the outputs, see Builder.Cancels
}

// Pass says whether the case is right. An error that is not a number is not.
func (r Result) Pass() bool { return r.Error <= r.Bound && r.Problem == "" }

func (r Result) String() string {
	text := fmt.Sprintf("%s %s: error %.2g, bound %.0e", r.Op, r.Shape, r.Error, r.Bound)
	if r.Output != "" {
		text += " in " + r.Output
	}
	if r.Problem != "" {
		text += "; " + r.Problem
	}
	if !r.Pass() {
		text += fmt.Sprintf(" (seed %d)", r.Seed)
	}
	return text
}

// DefaultBound is the error allowed of a kernel in a precision.
func DefaultBound(p kernels.Precision) float64 {
	return map[kernels.Precision]float64{kernels.FP32: 1e-5, kernels.TF32: 1e-3, kernels.BF16: 1e-2, kernels.FP64: 1e-13}[p]
}

// CompiledBound is the difference allowed between a kernel's PTX and the same kernel compiled for the CPU: approximate exponentials and fused
// multiply-adds move float32 sums by some 1e-7, and more where they cancel; a value that is thereby rounded the other way moves by 2⁻¹¹ as a tf32
// operand and by 2⁻⁸ in bf16, which an output of few values shows. Most cases differ by a tenth of this.
func CompiledBound(p kernels.Precision) float64 {
	return map[kernels.Precision]float64{kernels.FP32: 3e-6, kernels.TF32: 5e-4, kernels.BF16: 4e-3}[p]
}

// Run runs all cases on a device (it calls d.Do itself). Results that do not pass are not errors of Run: an error means that the device or the
// harness failed, and comes with the results up to there.
func Run(d *gpu.Device, r kernels.Precision, o Options) ([]Result, error) {
	if o.Seed == 0 {
		o.Seed = rand.Uint64()
	}
	var results []Result
	launched := map[string]int{} // cases that launched each kernel
	err := onQueues(d, r, o.Compiled, func(q, compiled *kernels.Queue) error {
		for _, op := range o.ops() {
			for _, c := range op.Cases {
				if c.Large && o.Short {
					continue
				}
				if o.PerKernel > 0 {
					names, err := namesOf(d, q, c)
					if err != nil {
						return fmt.Errorf("preparing %s %s: %w", op.Name, c.Shape, err)
					}
					if !slices.ContainsFunc(names, func(name string) bool { return launched[name] < o.PerKernel }) {
						continue
					}
				}
				result, err := runCase(d, q, op.Name, c, o.Seed)
				if err == nil && compiled != nil {
					err = result.compareCompiled(d, compiled, c)
				}
				if err != nil {
					return fmt.Errorf("selftest of %s %s (seed %d): %w", op.Name, c.Shape, o.Seed, err)
				}
				result.values = nil
				results = append(results, result)
				for _, name := range result.Kernels {
					launched[name]++
				}
				if o.Done != nil {
					o.Done(result)
				}
			}
		}
		return nil
	})
	return results, err
}

// namesOf is the kernels that a case launches.
func namesOf(d *gpu.Device, q *kernels.Queue, c Case) (names []string, err error) {
	b := &Builder{device: d, queue: q, rng: caseSeed(1, "", ""), timing: true}
	defer func() { err = join(err, b.free()) }()
	c.Build(b)
	for _, f := range b.launches {
		names = append(names, q.Names(f)...)
	}
	return names, b.err
}

// compareCompiled runs a case of which r is the result with the compiled kernels.
func (r *Result) compareCompiled(d *gpu.Device, q *kernels.Queue, c Case) error {
	other, err := runCase(d, q, r.Op, c, r.Seed)
	if err != nil {
		return fmt.Errorf("the compiled kernels: %w", err)
	}
	bound := CompiledBound(q.Precision())
	for i, want := range other.values {
		if e := relativeError(r.values[i], want, r.least[i]); !(e <= bound) && r.Problem == "" {
			r.Problem = fmt.Sprintf("output %d differs by %.2g from the compiled kernels', bound %.0e", i+1, e, bound)
		}
	}
	return nil
}

// onQueues is onQueue with a second queue of the compiled kernels, nil where none is asked for.
func onQueues(d *gpu.Device, r kernels.Precision, compiled bool, f func(q, compiled *kernels.Queue) error) error {
	return onQueue(d, r, func(q *kernels.Queue) error {
		if !compiled {
			return f(q, nil)
		}
		l, err := kernels.LoadCompiled(d, r)
		if err != nil {
			return err
		}
		return join(f(q, l.NewQueue(q.Stream())), l.Close())
	})
}

func onQueue(d *gpu.Device, r kernels.Precision, f func(q *kernels.Queue) error) error {
	return d.Do(func() error {
		l, err := kernels.Load(d, r)
		if err != nil {
			return err
		}
		s, err := d.NewStream()
		if err != nil {
			return join(err, l.Close())
		}
		return join(f(l.NewQueue(s)), join(s.Close(), l.Close()))
	})
}

// join is the first error; what fails while cleaning up after it says nothing new.
func join(err, after error) error {
	if err != nil {
		return err
	}
	return after
}

// caseSeed makes the inputs of a case depend on its name and the seed alone, not on which other cases run.
func caseSeed(seed uint64, op, shape string) *rand.Rand {
	h := fnv.New64a()
	fmt.Fprintf(h, "%s %s", op, shape)
	return rand.New(rand.NewPCG(seed, h.Sum64()))
}

func runCase(d *gpu.Device, q *kernels.Queue, op string, c Case, seed uint64) (result Result, err error) {
	result = Result{Op: op, Shape: c.Shape, Bound: c.Bound, Seed: seed}
	if c.Bound == 0 {
		result.Bound = DefaultBound(q.Precision())
	}
	before := q.Library().Launches()
	b := &Builder{device: d, queue: q, rng: caseSeed(seed, op, c.Shape)}
	defer func() { err = join(err, b.free()) }()
	c.Build(b)
	if b.err != nil {
		return result, b.err
	}
	if b.storesRounded() {
		result.Bound = max(result.Bound, DefaultBound(q.Precision()))
	}
	if err := b.run(b.launches); err != nil {
		return result, err
	}
	if err := b.compare(&result); err != nil {
		return result, err
	}
	for _, again := range b.again {
		if err := b.reset(); err != nil {
			return result, err
		}
		if err := b.run([]func(*kernels.Queue){again.launch}); err != nil {
			return result, err
		}
		if err := b.compareAgain(again.what, &result); err != nil {
			return result, err
		}
	}
	after := q.Library().Launches()
	for name, n := range after {
		if n > before[name] {
			result.Kernels = append(result.Kernels, name)
		}
	}
	slices.Sort(result.Kernels)
	return result, nil
}
