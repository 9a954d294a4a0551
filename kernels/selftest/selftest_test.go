package selftest

import (
	"math"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"testing"

	"ddgpu/gpu"
	"ddgpu/gpu/driver"
	"ddgpu/kernels"
)

// onDevice runs f with the first device of a spec.
func onDevice(t *testing.T, spec string, f func(d *gpu.Device) error) {
	t.Helper()
	m, err := gpu.Open(spec)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := m.Close(); err != nil {
			t.Error(err)
		}
	}()
	if err := f(m.Devices[0]); err != nil {
		t.Fatalf("%s: %v", spec, err)
	}
}

// run runs the selftest; what does not pass fails the test.
func run(t *testing.T, spec string, r kernels.Precision, o Options) (results []Result) {
	t.Helper()
	onDevice(t, spec, func(d *gpu.Device) (err error) {
		results, err = Run(d, r, o)
		return err
	})
	for _, result := range results {
		if !result.Pass() {
			t.Errorf("%s %v: %v", spec, r, result)
		}
	}
	return results
}

// Every operation in the CPU's configuration: against the references, divided otherwise, and with any number of threads to the same bits.
func TestHostTiles(t *testing.T) {
	o := Options{Seed: rand.Uint64(), Short: testing.Short()}
	same(t, run(t, "host", kernels.FP32, o), run(t, "host,threads=3,order=reverse,lazy", kernels.FP32, o), "three threads")
}

// Every operation in the GPU's configuration, on fibers, in every order of the threads: against the references, and to the same bits.
func TestGPUTiles(t *testing.T) {
	for _, r := range []kernels.Precision{kernels.FP32, kernels.FP64} {
		t.Run(r.String(), func(t *testing.T) {
			o := Options{Seed: rand.Uint64(), Short: !nightly}
			forward := run(t, "host,tiles=gpu", r, o)
			orders := []string{"reverse", "ahead", "random:17"}
			if driver.Sanitizer() == "thread" {
				orders = nil // a race is one in every order
			}
			for _, order := range orders {
				same(t, forward, run(t, "host,tiles=gpu,order="+order, r, o), order)
			}
		})
	}
}

// nightly says that a test shall take the time for all cases where it usually takes two for each kernel.
var nightly = os.Getenv("DDGPU_NIGHTLY") != ""

// Every operation with the matrix products of tensor cores, on fibers, whose instructions the host device executes by their definition: against
// the references, and to the same bits in another order.
func TestTensorCores(t *testing.T) {
	for _, p := range []kernels.Precision{kernels.TF32, kernels.BF16} {
		t.Run(p.String(), func(t *testing.T) {
			o := Options{Seed: rand.Uint64(), PerKernel: 2}
			if nightly {
				o.PerKernel = 0
			}
			forward := run(t, "host,tiles=gpu", p, o)
			if missing := Missing(forward); len(missing) > 0 {
				t.Errorf("no operation launches %s", strings.Join(missing, ", "))
			}
			if driver.Sanitizer() != "thread" {
				same(t, forward, run(t, "host,tiles=gpu,order=random:17", p, o), "a random order")
			}
		})
	}
}

// Every kernel of every precision by its PTX: against the references and the compiled kernels, and to the same bits in another order.
func TestPTX(t *testing.T) {
	for _, p := range []kernels.Precision{kernels.FP32, kernels.TF32, kernels.BF16} {
		t.Run(p.String(), func(t *testing.T) {
			o := Options{Seed: rand.Uint64(), PerKernel: 1, Compiled: true}
			if nightly {
				o.PerKernel = 0
			}
			forward := run(t, "ptx", p, o)
			if missing := Missing(forward); len(missing) > 0 {
				t.Errorf("no operation launches %s", strings.Join(missing, ", "))
			}
			o.Compiled = false
			same(t, forward, run(t, "ptx,order=random:17", p, o), "a random order")
		})
	}
}

// A case fails whose PTX differs from what was compiled for the CPU, by less than its own bound against float64 too.
func TestPTXDiffersFromCompiled(t *testing.T) {
	for _, off := range []float64{0, 6e-6} {
		var runs float64
		op := Op{Name: "scale", Cases: []Case{{Shape: "1", Bound: 1e-5, Build: func(b *Builder) {
			by := 1 + off*runs
			runs++
			x, y := b.In([]float64{3}), b.Out("y", []float64{3 * by})
			b.Launch(func(q *kernels.Queue) { q.Scale(1, y, x, by) })
		}}}}
		onDevice(t, "ptx", func(d *gpu.Device) error {
			results, err := Run(d, kernels.FP32, Options{Ops: []Op{op}, Compiled: true})
			if err == nil && (runs != 2 || len(results) != 1 || results[0].Pass() != (off == 0)) {
				t.Errorf("off by %g: %v after %g runs", off, results, runs)
			}
			return err
		})
	}
}

// An output that is not a number fails the case, whatever the outputs before and after it are.
func TestNaNFails(t *testing.T) {
	for wrong := range 3 {
		op := Op{Name: "scale", Cases: []Case{{Shape: "1", Bound: 1e-5, Build: func(b *Builder) {
			x := b.In([]float64{3})
			for i := range 3 {
				by, y := 1.0, b.Out("y", []float64{3})
				if i == wrong {
					by = math.NaN()
				}
				b.Launch(func(q *kernels.Queue) { q.Scale(1, y, x, by) })
			}
		}}}}
		onDevice(t, "host", func(d *gpu.Device) error {
			results, err := Run(d, kernels.FP32, Options{Ops: []Op{op}})
			if err == nil && (len(results) != 1 || results[0].Pass() || !math.IsNaN(results[0].Error)) {
				t.Errorf("output %d of 3 is NaN: %v", wrong, results)
			}
			return err
		})
	}
}

func same(t *testing.T, want, got []Result, what string) {
	t.Helper()
	if len(want) != len(got) {
		t.Fatalf("%d results, with %s %d", len(want), what, len(got))
	}
	for i, w := range want {
		if got[i].Hash != w.Hash {
			t.Errorf("%s %s: other bits with %s (seed %d)", w.Op, w.Shape, what, w.Seed)
		}
	}
}

// Every kernel of the tensor cores' precisions is launched by as many cases as are promised.
func TestEnoughCases(t *testing.T) {
	for _, p := range []kernels.Precision{kernels.TF32, kernels.BF16} {
		cases := map[string]int{}
		onDevice(t, "host,tiles=gpu", func(d *gpu.Device) error {
			return onQueue(d, p, func(q *kernels.Queue) error {
				for _, op := range All() {
					for _, c := range op.Cases {
						names, err := namesOf(d, q, c)
						if err != nil {
							return err
						}
						slices.Sort(names)
						for _, name := range slices.Compact(names) {
							cases[name]++
						}
					}
				}
				return nil
			})
		})
		for _, name := range slices.Concat(kernels.Declared(false), kernels.Declared(true)) {
			if cases[name] < enoughCases {
				t.Errorf("%v: %d cases launch %s, want %d", p, cases[name], name, enoughCases)
			}
		}
	}
}

func TestEveryKernelIsCovered(t *testing.T) {
	results := run(t, "host", kernels.FP32, Options{})
	if missing := Missing(results); len(missing) > 0 {
		t.Errorf("no operation launches %s", strings.Join(missing, ", "))
	}
	var table strings.Builder
	if err := ShowCoverage(&table, results); err != nil {
		t.Fatal(err)
	}
	everywhere := len(kernels.Declared(false))
	if lines, all := strings.Count(table.String(), "\n"), everywhere+len(kernels.Declared(true)); lines != 1+all {
		t.Errorf("the table has %d lines for %d kernels:\n%s", lines, all, table.String())
	}
	if all := Missing(nil); len(all) != everywhere {
		t.Errorf("without results %d kernels of %d are missing", len(all), everywhere)
	}
}

// The seed alone decides the inputs, whichever other cases run.
func TestSeed(t *testing.T) {
	one := run(t, "host", kernels.FP32, Options{Seed: 1})
	onlyAdd := func(name string) bool { return name == "add" }
	alone := run(t, "host", kernels.FP32, Options{Seed: 1, Match: onlyAdd})
	other := run(t, "host", kernels.FP32, Options{Seed: 2, Match: onlyAdd})
	if len(alone) == 0 || len(alone) != len(other) {
		t.Fatalf("%d and %d results", len(alone), len(other))
	}
	for _, r := range one {
		for i := range alone {
			if r.Op == alone[i].Op && r.Shape == alone[i].Shape && r.Hash != alone[i].Hash {
				t.Errorf("%s %s: other inputs when it runs alone", r.Op, r.Shape)
			}
		}
	}
	for i := range alone {
		if alone[i].Hash == other[i].Hash {
			t.Errorf("%s %s: the same inputs for another seed", alone[i].Op, alone[i].Shape)
		}
	}
}

// What a wrong kernel does must show: each case below is wrong in one way.
func TestSeesWhatIsWrong(t *testing.T) {
	const n = 1000
	add := func(b *Builder, want func(i int, sum float64) float64, launch func(q *kernels.Queue, y, x, z gpu.Ptr)) (y, x, z gpu.Ptr) {
		a, c := b.Normal(n), b.Normal(n)
		sums := make([]float64, n)
		for i := range sums {
			sums[i] = want(i, a[i]+c[i])
		}
		y, x, z = b.Out("y", sums), b.In(a), b.In(c)
		b.Launch(func(q *kernels.Queue) { launch(q, y, x, z) })
		return y, x, z
	}
	right := func(_ int, sum float64) float64 { return sum }
	rightly := func(q *kernels.Queue, y, x, z gpu.Ptr) { q.Add(n, y, x, z) }
	for _, c := range []struct {
		what, problem string
		build         func(b *Builder)
	}{
		{"nothing", "", func(b *Builder) { add(b, right, rightly) }},
		{"one value of a thousand off by 1e-3", "", func(b *Builder) {
			add(b, func(i int, sum float64) float64 {
				if i == 7 {
					sum += 1e-3
				}
				return sum
			}, rightly)
		}},
		{"one value not written", "", func(b *Builder) {
			add(b, right, func(q *kernels.Queue, y, x, z gpu.Ptr) { q.Add(n-1, y, x, z) })
		}},
		{"one value too many", "wrote 4000 bytes from the start of y, which has 4000", func(b *Builder) {
			add(b, right, func(q *kernels.Queue, y, x, z gpu.Ptr) { q.Add(n+1, y, x, z) })
		}},
		{"one value before", "wrote -4 bytes from the start of y", func(b *Builder) {
			add(b, right, func(q *kernels.Queue, y, x, z gpu.Ptr) {
				q.Add(n, y, x, z)
				q.Add(1, y-4, x, z)
			})
		}},
		{"an input read too far", "", func(b *Builder) {
			add(b, right, func(q *kernels.Queue, y, x, z gpu.Ptr) { q.Add(n, y, x+4, z) })
		}},
		{"an input changed", "changed an input", func(b *Builder) {
			add(b, right, func(q *kernels.Queue, y, x, z gpu.Ptr) {
				q.Add(n, y, x, z)
				q.Add(1, x, x, x)
			})
		}},
		{"a value written that must stay", "", func(b *Builder) {
			add(b, func(i int, sum float64) float64 {
				if i == 3 {
					return untouched(1)[0]
				}
				return sum
			}, rightly)
		}},
		{"other bits", "y has other bits in reverse", func(b *Builder) {
			y, x, _ := add(b, right, rightly)
			b.Again("in reverse", func(q *kernels.Queue) { q.Add(n, y, x, x) })
		}},
		{"no output", "no output", func(b *Builder) { b.In(b.Normal(1)) }},
	} {
		onDevice(t, "host", func(d *gpu.Device) error {
			return onQueue(d, kernels.FP32, func(q *kernels.Queue) error {
				r, err := runCase(d, q, c.what, Case{Shape: "1", Build: c.build}, 5)
				if r.Pass() != (c.what == "nothing") || !strings.Contains(r.Problem, c.problem) {
					t.Errorf("%s: %v", c.what, r)
				}
				return err
			})
		})
	}
}

// A launch that the device refuses is an error of the run that names the case.
func TestLaunchError(t *testing.T) {
	onDevice(t, "host,fault=launch:3", func(d *gpu.Device) error {
		results, err := Run(d, kernels.FP32, Options{Seed: 9})
		if err == nil || !strings.Contains(err.Error(), "selftest of "+All()[0].Name) || !strings.Contains(err.Error(), "seed 9") {
			t.Errorf("got %v after %d results", err, len(results))
		}
		return nil
	})
}

func TestBench(t *testing.T) {
	onDevice(t, "host", func(d *gpu.Device) error {
		var heard int
		timings, err := Bench(d, kernels.FP32, Options{Match: func(name string) bool { return name == "shard_sum" || name == "peak" }, Repeats: 1,
			Timed: func(Timing) { heard++ }})
		if len(timings) == 0 || len(timings) != heard {
			t.Errorf("%d timings, %d reported", len(timings), heard)
		}
		for _, x := range timings {
			if x.Op != "shard_sum" || x.Median <= 0 || x.BytesPerSecond() <= 0 || x.FLOPsPerSecond() <= 0 || !(x.Share() > 0 && x.Share() < 100) {
				t.Errorf("%+v: share %g", x, x.Share())
			}
			if c := x.Ceilings; c.BytesPerSecond < 1e8 || c.FLOPsPerSecond < 1e8 || c.BytesPerSecond > 1e15 || c.FLOPsPerSecond > 1e17 {
				t.Errorf("%+v", c)
			}
		}
		return err
	})
}
