package selftest

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"ddgpu/gpu"
	"ddgpu/kernels"
)

// Timing is the time of one case.
type Timing struct {
	Op, Shape string
	Median    time.Duration // of one run of the launches
	Spread    time.Duration // half the distance between the quartiles
	Bytes     float64       // that they must move at least
	FLOPs     float64       // their arithmetic
	Ceilings  Ceilings      // of the device
}

// BytesPerSecond is the rate at which the case's least bytes move.
func (t Timing) BytesPerSecond() float64 { return t.Bytes / t.Median.Seconds() }

// FLOPsPerSecond is the rate of the case's arithmetic.
func (t Timing) FLOPsPerSecond() float64 { return t.FLOPs / t.Median.Seconds() }

// Share is how close the case comes to the device's ceilings: the time that the nearer of them leaves it, over its time. More than 1 is
// possible where the data stay in a cache, which is faster than memory.
func (t Timing) Share() float64 {
	return max(t.BytesPerSecond()/t.Ceilings.BytesPerSecond, t.FLOPsPerSecond()/t.Ceilings.FLOPsPerSecond)
}

// Ceilings are what a device gives at most, measured on it.
type Ceilings struct {
	BytesPerSecond float64 // read and written: the better of the driver's copy and the add kernel, over arrays beyond any cache
	FLOPsPerSecond float64 // of multiply-adds in registers, two each
}

// Bench times the bench cases on a device (it calls d.Do itself).
func Bench(d *gpu.Device, r kernels.Precision, o Options) ([]Timing, error) {
	if o.Seed == 0 {
		o.Seed = rand.Uint64()
	}
	if o.Repeats == 0 {
		o.Repeats = 20
	}
	var timings []Timing
	err := onQueue(d, r, func(q *kernels.Queue) error {
		ceilings, err := measureCeilings(d, q, o.Repeats)
		if err != nil {
			return fmt.Errorf("measuring the device's ceilings: %w", err)
		}
		for _, op := range o.ops() {
			for _, c := range op.Bench {
				if c.Large && o.Short {
					continue
				}
				t, err := timeCase(d, q, op.Name, c, o)
				if err != nil {
					return fmt.Errorf("timing %s %s: %w", op.Name, c.Shape, err)
				}
				t.Ceilings = ceilings
				timings = append(timings, t)
				if o.Timed != nil {
					o.Timed(t)
				}
			}
		}
		return nil
	})
	return timings, err
}

func timeCase(d *gpu.Device, q *kernels.Queue, op string, c Case, o Options) (t Timing, err error) {
	b := &Builder{device: d, queue: q, rng: caseSeed(o.Seed, op, c.Shape), timing: true}
	defer func() { err = join(err, b.free()) }()
	c.Build(b)
	if b.err != nil {
		return t, b.err
	}
	t = Timing{Op: op, Shape: c.Shape, Bytes: c.Bytes * float64(q.Precision().Size()) / 4, FLOPs: c.FLOPs}
	times, err := timesOf(d, q, o.Repeats, b.launches...)
	if err != nil {
		return t, err
	}
	n := len(times)
	t.Median, t.Spread = times[n/2], (times[n-1-n/4]-times[n/4])/2
	return t, nil
}

// enough is the time after which a case is measured no more, once it has been three times.
const enough = time.Second

// timesOf is the times of the launches between two events, ascending, without those of two runs before.
func timesOf(d *gpu.Device, q *kernels.Queue, repeats int, launches ...func(*kernels.Queue)) (times []time.Duration, err error) {
	start, err := d.NewEvent()
	if err != nil {
		return nil, err
	}
	defer func() { err = join(err, start.Close()) }()
	end, err := d.NewEvent()
	if err != nil {
		return nil, err
	}
	defer func() { err = join(err, end.Close()) }()
	began := time.Now()
	for i := range repeats + 2 {
		if err := q.Stream().Record(start); err != nil {
			return nil, err
		}
		for _, f := range launches {
			f(q)
		}
		if err := join(q.Err(), q.Stream().Record(end)); err != nil {
			return nil, err
		}
		if err := end.Sync(); err != nil {
			return nil, err
		}
		took, err := end.Since(start)
		if err != nil {
			return nil, err
		}
		if i >= 2 {
			times = append(times, max(took, 1))
		}
		if len(times) >= 3 && time.Since(began) > enough {
			break
		}
	}
	slices.Sort(times)
	return times, nil
}

// measureCeilings takes the best of all repeats.
func measureCeilings(d *gpu.Device, q *kernels.Queue, repeats int) (c Ceilings, err error) {
	b := &Builder{device: d, queue: q, timing: true}
	defer func() { err = join(err, b.free()) }()
	fastest := func(f func(q *kernels.Queue)) float64 {
		if b.err != nil {
			return 1
		}
		times, err := timesOf(d, q, repeats, f)
		if err != nil {
			b.err = err
			return 1
		}
		return times[0].Seconds()
	}

	bytes := int64(256 << 20) // well beyond the caches of an H200 or a server's CPU
	free, _, err := d.MemInfo()
	if err != nil {
		return c, err
	}
	bytes = min(bytes, free/8) / 256 * 256
	n := bytes / q.Precision().Size()
	x, y, z := b.Scratch(int(n)), b.Scratch(int(n)), b.Scratch(int(n))
	var copied error
	copying := fastest(func(q *kernels.Queue) { copied = join(copied, q.Stream().Copy(y, x, bytes)) })
	adding := fastest(func(q *kernels.Queue) { q.Add(n, z, x, y) })
	c.BytesPerSecond = max(2*float64(bytes)/copying, 3*float64(bytes)/adding)

	// Launches that take a millisecond or more, so that starting one is no part of it.
	const blocks = 1024
	values, chains := q.PeakShape()
	out := b.Scratch(blocks * values)
	for steps := 1 << 10; ; steps *= 2 {
		took := fastest(func(q *kernels.Queue) { q.Peak(blocks, steps, 0.999, 0.001, out) })
		c.FLOPsPerSecond = 2 * float64(steps) * float64(blocks*values*chains) / took
		if took > 1e-3 || steps == 1<<20 {
			break
		}
	}
	return c, join(b.err, copied)
}

// peakCase checks the kernel that the ceiling of arithmetic is measured with.
func peakCase(blocks, steps int) Case {
	return Case{Shape: fmt.Sprintf("%d blocks, %d steps", blocks, steps), Build: func(b *Builder) {
		values, chains := b.queue.PeakShape()
		const m, add = 0.75, 0.5
		out := b.OutAcc("out", b.Want(blocks*values, func() []float64 {
			want := make([]float64, blocks*values)
			for i := range want {
				for c := range chains {
					a := float64(1 + c)
					for range steps {
						a = a*m + add
					}
					want[i] += a
				}
			}
			return want
		}))
		b.Launch(func(q *kernels.Queue) { q.Peak(blocks, steps, m, add, out) })
	}}
}

func peakOps() []Op {
	return []Op{{Name: "peak", Cases: []Case{peakCase(1, 0), peakCase(3, 7), peakCase(2, 1000)}}}
}
